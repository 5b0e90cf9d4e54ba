"""What runs next: durable workflows in the record's own database. Importing this package loads no DBOS."""
