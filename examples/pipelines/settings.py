"""Redis for everything. With BROKER_URL=amqp://… messages go by RabbitMQ, and results and records stay on Redis."""

import os

broker_url = os.environ.get("BROKER_URL", "redis://localhost:6379/0")
result_backend = os.environ.get("RESULT_BACKEND", "redis://localhost:6379/0")
broker_connection_retry_on_startup = True

# The key and the API's address come from FRAMELANE_API_KEY and FRAMELANE_BASE_URL.
framelane = {
    # A mistake may not cost more than this; what would pass it waits until the next day (UTC).
    "spend_guard": {"submissions_per_day": 3000},
}
