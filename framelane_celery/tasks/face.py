"""How type checkers see the built-in tasks. Celery has no types of its own: they would be Any to mypy, and to pyright
something that cannot even be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol

from celery import shared_task

if TYPE_CHECKING:
    from celery.result import AsyncResult

P = ParamSpec("P")


class Canvas(Protocol):
    """A signature, or a chain of them: what Celery's own `chain`, `group` and `chord` take too."""

    def __or__(self, other: Any, /) -> Canvas: ...

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult: ...

    def apply_async(self, args: Sequence[Any] | None = ..., kwargs: Any = ..., **options: Any) -> AsyncResult: ...

    def set(self, **options: Any) -> Canvas: ...

    def clone(self, args: Sequence[Any] = ..., kwargs: Any = ..., **options: Any) -> Canvas: ...

    def link(self, callback: Any) -> Any: ...

    def link_error(self, errback: Any) -> Any: ...


class BuiltinFace(Protocol[P]):
    """A built-in task, with the arguments that it takes."""

    name: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Run it here and now, without a worker: see docs/testing.md."""

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """Have a worker run it."""

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult:
        """The same, once Django's transaction is committed."""

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Canvas:
        """Its signature, to be put into a chain, a group or a chord."""

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Canvas:
        """Its signature, which takes nothing of the step before."""

    def signature(self, args: Sequence[Any] | None = ..., kwargs: Any = ..., **options: Any) -> Canvas:
        """Its signature, with options."""

    def apply_async(
        self, args: Sequence[Any] | None = ..., kwargs: Mapping[str, Any] | None = ..., **options: Any
    ) -> AsyncResult:
        """Have a worker run it, with Celery's options: ``countdown``, ``queue``, ``task_id``, ``link``, …"""

    def apply_async_on_commit(
        self, args: Sequence[Any] | None = ..., kwargs: Mapping[str, Any] | None = ..., **options: Any
    ) -> AsyncResult:
        """The same, once Django's transaction is committed."""

    def apply(self, args: Sequence[Any] | None = ..., kwargs: Mapping[str, Any] | None = ..., **options: Any) -> Any:
        """Run it here and now; a result that is ready."""


def builtin(name: str, base: type) -> Callable[[Callable[Concatenate[Any, P], Any]], BuiltinFace[P]]:
    """``@shared_task``, bound, whose outcome is typed."""
    decorate: Callable[[Callable[Concatenate[Any, P], Any]], BuiltinFace[P]]
    decorate = shared_task(name=name, base=base, bind=True)
    return decorate
