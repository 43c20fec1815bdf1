"""Messages on RabbitMQ. It cannot keep records, so the room is the result backend: Redis, or PostgreSQL.

For PostgreSQL: RESULT_BACKEND=db+postgresql+psycopg://user:password@localhost/database
"""

import os

broker_url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672//")
result_backend = os.environ.get("RESULT_BACKEND", "redis://localhost:6379/0")
broker_connection_retry_on_startup = True

# The key and the API's address come from FRAMELANE_API_KEY and FRAMELANE_BASE_URL.
framelane = {
    "deadline_s": 3600,  # give a job up an hour after it was accepted
}
