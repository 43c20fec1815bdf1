"""The pytest plugin under the package's own name, for `pytest -p framelane_celery.testing.plugin`."""

from framelane_celery_pytest import (
    framelane_celery_config,
    framelane_server,
    framelane_settings,
    pytest_configure,
)

__all__ = ["framelane_celery_config", "framelane_server", "framelane_settings", "pytest_configure"]
