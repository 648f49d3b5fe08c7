"""`uvicorn api:app --host 0.0.0.0 --port 7777` serves every package of the checkout."""

from router.allocator import tune_allocator
from router.app import create_app
from router.logs import configure_logging

tune_allocator()
configure_logging()
app = create_app()
