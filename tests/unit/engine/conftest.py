from support.engine import database, engine, prepared_database, quick_polls, url

__all__ = ["database", "engine", "prepared_database", "quick_polls", "url"]
