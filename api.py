"""`uvicorn api:app --host 0.0.0.0 --port 7777` serves every package of the checkout."""

from router.app import create_app
from router.logs import configure_logging
from router.server_limits import tune_allocator

tune_allocator()
configure_logging()
app = create_app()
