"""Alembic scripts; `database.upgrade` runs them."""
