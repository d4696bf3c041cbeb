"""The contract as a whole: all its tests, for one store."""

from .asynchronous import AsyncTests
from .expiry import ExpiryTests
from .grants import GrantTests
from .leases import LeaseTests
from .listing import ListingTests
from .locks import PublicCallTests
from .pages import PageTests
from .pausing import PausingTests
from .queueing import QueueingTests
from .refusals import RefusalTests
from .release import ReleaseTests
from .renewal import RenewalTests
from .tokens import TokenTests
from .transactions import TransactionTests


class LockBackendContract(
    GrantTests,
    RefusalTests,
    ExpiryTests,
    ReleaseTests,
    RenewalTests,
    TokenTests,
    ListingTests,
    PageTests,
    PausingTests,
    QueueingTests,
    TransactionTests,
    AsyncTests,
    LeaseTests,
    PublicCallTests,
):
    """Tests of the store that `DISTLOCK[alias]` names: exclusion, own release, fencing, liveness.

    Write it before a class `SimpleTestCase` or `TransactionTestCase`. Tests of what the store
    doesn't declare are skipped.
    """
