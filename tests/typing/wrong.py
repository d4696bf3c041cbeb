# pyright: basic, reportUnnecessaryTypeIgnoreComment=true
"""Each of these mistakes is one to type checkers, too: an unnecessary comment is an error."""

from django_distlock import Lease, acquire_lock, distributed_lock, lock_backends, release_lock, skip
from tests.typing.locks import acollect, collect, collect_or_skip, collect_or_tell, in_list
from tests.typing.models import Payment


async def instead_in_async_code(customer_id: int) -> str:
    """Stand in for a contended call."""
    return "busy"


def acquire() -> None:
    """The lock may be held elsewhere, and the semaphore is a str."""
    acquire_lock("1234collectPayment").release()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    acquire_lock(1234)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    acquire_lock("1234collectPayment", 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    acquire_lock("1234collectPayment", timeout="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    acquire_lock("1234collectPayment", blocking=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    release_lock(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def use(lease: Lease) -> None:
    """The owner is a secret, and only the package makes and changes a lease."""
    print(lease.owner)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    lease.mark_lost()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    lease.ttl = 60  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Lease()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    if lease.token > 3:  # type: ignore[operator]  # pyright: ignore[reportOptionalOperand]
        lease.check()


async def use_in_async_code(lease: Lease) -> None:
    """The twins are to be awaited."""
    released: bool = lease.arelease()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    assert released


def decorate() -> None:
    """A template or a callable is needed first, and then a function."""
    distributed_lock()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    distributed_lock("report")()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    distributed_lock("report", on_conflict="skip")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    distributed_lock(instead_in_async_code)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    distributed_lock("report", on_conflcit=skip)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with distributed_lock("report", on_conflict=skip):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
        pass


def call() -> None:
    """Arguments and results are those of the function."""
    collect("1234")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    collect(customer=1234)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    collect_or_skip(1234).decode()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    in_list(1).append(2)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    collect_or_tell(1234).decode()  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    acollect(1234).decode()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def operate(lease: Lease) -> None:
    """Operators have tokens, and may find nothing."""
    store = lock_backends["default"]
    store.force_release("1234collectPayment", lease.token)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(store.find("1234collectPayment").holder)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    print(store.status()["lock"])  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]


def write(payment: Payment, lease: Lease | None) -> None:
    """A fence needs a lease, not its semaphore or token."""
    Payment.objects.fenced("1234collectPayment")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Payment.objects.fenced(lease)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    payment.save(lease="1234collectPayment")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
