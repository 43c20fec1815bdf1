"""Everything on one Redis. The records are kept there too: the room is the broker, if the broker is Redis."""

import os

broker_url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
result_backend = broker_url
broker_connection_retry_on_startup = True

# The key and the API's address come from FRAMELANE_API_KEY and FRAMELANE_BASE_URL.
framelane = {
    "deadline_s": 3600,  # give a job up an hour after it was accepted
}
