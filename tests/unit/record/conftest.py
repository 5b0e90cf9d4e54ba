from support.record import blank_url, migrated_database, migrated_file, own_record, record, url

__all__ = ["blank_url", "migrated_database", "migrated_file", "own_record", "record", "url"]
