"""What every route works with."""

from dataclasses import dataclass, field

from vlrt.server.batching import Scheduler
from vlrt.server.jobs import Jobs
from vlrt.server.labels import LabelCache
from vlrt.server.metrics import Metrics
from vlrt.server.models import Catalogue
from vlrt.server.settings import Settings


@dataclass
class State:
    """What changes while a server runs.

    Attributes:
        draining: it is ending, and finishes what it has; it is not ready for more.
    """

    draining: bool = False


@dataclass(frozen=True)
class Context:
    """A server's parts (see their modules).

    Attributes:
        fetches: jobs too, of pictures to be fetched. They wait for other hosts, and do no work, so
            none of the models' slots are for them.
    """

    settings: Settings
    catalogue: Catalogue
    scheduler: Scheduler
    jobs: Jobs
    fetches: Jobs
    labels: LabelCache
    metrics: Metrics
    state: State = field(default_factory=State)
