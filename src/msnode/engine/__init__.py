"""The durable-workflow port: what runs next. Importing this package loads no engine."""
