"""What can be wrong in a deployment: facts are gathered (`asking`), and pure checks say what follows (`checks`).

Source of the checks: broker_facts.md and celery_facts.md; each names its row.
"""

from framelane_celery.doctor.findings import Finding, Level
from framelane_celery.doctor.health import Health, probe
from framelane_celery.doctor.visit import examine

__all__ = ["Finding", "Health", "Level", "examine", "probe"]
