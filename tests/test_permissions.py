"""May this client do this? Permissions alone, their expressions, and what counts as a permission."""

import asyncio
import operator
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace, UnionType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import UnauthenticatedUser

from fastapi_consumers.exceptions import ConsumerError, NotAuthenticated, NotFound, PermissionDenied
from fastapi_consumers.identity import ANONYMOUS
from fastapi_consumers.permissions import (
    AllowAny,
    And,
    BasePermission,
    DenyAny,
    IsAuthenticated,
    Not,
    Or,
    check_permissions,
    compile_permissions,
    permission_of,
)


class Sync(BasePermission):
    """Answers what it is told to, and notes each time it is asked."""

    def __init__(self, answer: Any, message: str | None = None, log: list[Any] | None = None) -> None:
        self.answer = answer
        self.message = message
        self.log = [] if log is None else log

    def has_permission(self, consumer: Any, action: Any = None) -> Any:
        self.log.append(self)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Async(Sync):
    async def has_permission(self, consumer: Any, action: Any = None) -> Any:
        await asyncio.sleep(0)
        return super().has_permission(consumer, action)


class Yes(BasePermission):
    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return True


class No(BasePermission):
    message = "No."
    code = "no"

    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return False


both = pytest.mark.parametrize("kind", [Sync, Async])


async def refusal(*entries: Any, consumer: Any = None, action: Any = None) -> ConsumerError | None:
    try:
        await check_permissions(compile_permissions(entries), consumer, action)
    except ConsumerError as error:
        return error
    return None


async def message(*entries: Any) -> str | None:
    error = await refusal(*entries)
    return None if error is None else error.message


# --- one permission ---


@both
@pytest.mark.parametrize("answer", [True, 1, "yes", [0]])
async def test_anything_true_allows(kind: type[Sync], answer: Any) -> None:
    assert await refusal(kind(answer)) is None


@both
@pytest.mark.parametrize("answer", [False, None, 0, "", []])
async def test_anything_else_refuses(kind: type[Sync], answer: Any) -> None:
    error = await refusal(kind(answer))
    assert type(error) is PermissionDenied
    assert (error.code, error.message) == ("permission_denied", PermissionDenied.default_message)


async def test_a_refusal_carries_the_permissions_message_and_code() -> None:
    error = await refusal(No)
    assert type(error) is PermissionDenied
    assert (error.code, error.message) == ("no", "No.")


async def test_a_permission_may_answer_with_an_error_of_its_own_that_knows_the_request() -> None:
    class Hidden(No):
        def denied(self, consumer: Any, action: Any = None) -> ConsumerError:
            return NotFound(f"{consumer} {action}")

    error = await refusal(Hidden, consumer="room", action="say")
    assert type(error) is NotFound
    assert error.message == "room say"


@both
async def test_an_error_raised_inside_is_the_answer(kind: type[Sync]) -> None:
    gone = NotFound("Gone.")
    assert await refusal(kind(gone)) is gone
    with pytest.raises(ZeroDivisionError):
        await refusal(kind(ZeroDivisionError()))


@both
@pytest.mark.parametrize(
    "answer",
    [PermissionDenied("not raised").with_traceback, PermissionDenied, print, lambda: False, NotImplemented],
    ids=["method", "class", "builtin", "function", "NotImplemented"],
)
async def test_a_slip_of_the_pen_that_is_true_is_an_error_and_does_not_allow(kind: type[Sync], answer: Any) -> None:
    with pytest.raises(TypeError, match=r"has_permission\(\) returned .*expected True or False"):
        await refusal(kind(answer))


async def test_an_error_that_was_returned_and_not_raised_does_not_allow() -> None:
    with pytest.raises(TypeError, match="raise the exception"):
        await refusal(lambda consumer: PermissionDenied("No."))


async def test_a_generator_in_place_of_a_coroutine_does_not_allow() -> None:
    async def yields(consumer: Any) -> Any:
        yield False

    with pytest.raises(TypeError, match="expected True or False"):
        await refusal(yields)


async def test_a_coroutine_that_was_returned_without_await_is_awaited_and_not_true() -> None:
    async def later(answer: bool) -> bool:
        return answer

    async def forgot(consumer: Any, answer: bool) -> Any:
        return later(answer)

    assert await refusal(partial(forgot, answer=True)) is None
    assert await refusal(partial(forgot, answer=False)) is not None


@both
async def test_denied_must_return_an_error_lest_its_absence_allow(kind: type[Sync]) -> None:
    class Forgot(kind):  # type: ignore[misc, valid-type]
        def denied(self, consumer: Any, action: Any = None) -> Any:
            return None

    with pytest.raises(TypeError, match=r"Forgot\.denied\(\) returned None; expected a ConsumerError"):
        await refusal(Forgot(False))


async def test_any_awaitable_may_be_the_answer() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(False)
    assert await refusal(lambda consumer: future) is not None


# --- those that come with the package ---


async def test_allow_any_and_deny_any_do_what_they_say() -> None:
    assert AllowAny().has_permission(None)
    assert await refusal(AllowAny & True) is None
    assert type(await refusal(DenyAny)) is PermissionDenied


@pytest.mark.parametrize("user", [SimpleNamespace(is_authenticated=True), object(), "ann"])
async def test_is_authenticated_allows_whoever_is_known(user: Any) -> None:
    assert await refusal(IsAuthenticated, consumer=SimpleNamespace(user=user)) is None


@pytest.mark.parametrize("user", [None, ANONYMOUS, UnauthenticatedUser(), SimpleNamespace(is_authenticated=int)])
async def test_is_authenticated_answers_others_not_authenticated(user: Any) -> None:
    error = await refusal(IsAuthenticated, consumer=SimpleNamespace(user=user))
    assert type(error) is NotAuthenticated
    assert error.close_code == 4401


async def test_a_subclass_of_is_authenticated_has_a_message_of_its_own() -> None:
    class LogIn(IsAuthenticated):
        message = "Log in first."

    error = await refusal(LogIn, consumer=SimpleNamespace(user=None))
    assert type(error) is NotAuthenticated
    assert error.message == "Log in first."


# --- expressions: the truth ---

Tree = Any
leaves = st.tuples(st.sampled_from([Sync, Async]), st.booleans())
trees: st.SearchStrategy[Tree] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("&"), inner, inner),
        st.tuples(st.just("|"), inner, inner),
        st.tuples(st.just("~"), inner),
    ),
    max_leaves=12,
)


def built(tree: Tree, log: list[Any]) -> BasePermission:
    """The tree as an expression. Its leaves are numbered from left to right by their message."""
    numbers = iter(range(100))

    def build(node: Tree) -> Any:
        match node:
            case ("&", left, right):
                return build(left) & build(right)
            case ("|", left, right):
                return build(left) | build(right)
            case ("~", inner):
                return ~build(inner)
            case (kind, answer):
                return kind(answer, str(next(numbers)), log)

    return build(tree)  # type: ignore[no-any-return]


def pythons(tree: Tree, log: list[str]) -> bool:
    """What Python's own ``and``, ``or`` and ``not`` make of the tree, and which leaves they look at."""
    numbers = iter(range(100))

    def numbered(node: Tree) -> Tree:
        if node[0] in ("&", "|", "~"):
            return (node[0], *map(numbered, node[1:]))
        return (str(next(numbers)), node[1])

    def value(node: Tree) -> bool:
        match node:
            case ("&", left, right):
                return value(left) and value(right)
            case ("|", left, right):
                return value(left) or value(right)
            case ("~", inner):
                return not value(inner)
            case (number, answer):
                log.append(number)
                return bool(answer)
        raise AssertionError(node)

    return value(numbered(tree))


@given(tree=trees)
async def test_expressions_agree_with_pythons_own_operators_and_ask_the_same_operands_once(tree: Tree) -> None:
    asked: list[Any] = []
    expected_asked: list[str] = []
    expected = pythons(tree, expected_asked)
    assert (await refusal(built(tree, asked)) is None) is expected
    assert [leaf.message for leaf in asked] == expected_asked


@given(tree=trees)
async def test_has_permission_of_an_expression_says_the_same(tree: Tree) -> None:
    permission: Any = built(tree, [])
    answer = permission.has_permission(None)
    assert (await answer if not isinstance(answer, bool) else answer) is pythons(tree, [])


@given(left=st.booleans(), right=st.booleans(), kinds=st.tuples(*[st.sampled_from([Sync, Async])] * 2))
async def test_truth_table(left: bool, right: bool, kinds: tuple[type[Sync], type[Sync]]) -> None:
    a, b = kinds[0](left), kinds[1](right)
    assert (await refusal(a & b) is None) is (left and right)
    assert (await refusal(a | b) is None) is (left or right)
    assert (await refusal(~a) is None) is (not left)
    assert (await refusal(~(a & b)) is None) is (await refusal(~a | ~b) is None)
    assert (await refusal(~(a | b)) is None) is (await refusal(~a & ~b) is None)


# --- expressions: which answer ---


@both
async def test_and_answers_with_the_operand_that_refused(kind: type[Sync]) -> None:
    assert await message(kind(True, "a") & kind(False, "b") & kind(False, "c")) == "b"
    error = await refusal(kind(True) & IsAuthenticated, consumer=SimpleNamespace(user=None))
    assert type(error) is NotAuthenticated


@both
async def test_or_answers_with_the_last_operand(kind: type[Sync]) -> None:
    assert await message(kind(False, "a") | kind(False, "b") | kind(False, "c")) == "c"


@both
async def test_or_prefers_not_authenticated_wherever_it_stands(kind: type[Sync]) -> None:
    anonymous = SimpleNamespace(user=None)
    for expression in (
        IsAuthenticated | kind(False),
        kind(False) | IsAuthenticated,
        kind(0) | IsAuthenticated | kind(0),
    ):
        assert type(await refusal(expression, consumer=anonymous)) is NotAuthenticated


@both
async def test_not_answers_with_its_own_message_and_never_with_its_operands(kind: type[Sync]) -> None:
    assert await message(~kind(True, "a")) == PermissionDenied.default_message
    error = await refusal(Not(kind(True, "a"), message="Banned.", code="banned"))
    assert type(error) is PermissionDenied
    assert (error.code, error.message) == ("banned", "Banned.")


@both
async def test_the_reason_of_a_negated_permission_is_not_asked_for(kind: type[Sync]) -> None:
    class Counts(kind):  # type: ignore[misc, valid-type]
        def denied(self, consumer: Any, action: Any = None) -> ConsumerError:
            raise AssertionError("nobody reads it")

    no = Counts(False)
    assert await refusal(~no, ~(no & no), ~(no | no), Not(Not(~no))) is None


@both
async def test_an_error_raised_in_an_operand_is_not_turned_into_a_pass(kind: type[Sync]) -> None:
    gone = NotFound("Gone.")
    assert await refusal(~kind(gone)) is gone
    assert await refusal(kind(gone) | kind(True)) is gone
    assert await refusal(kind(True) & kind(gone)) is gone


async def test_concurrent_checks_of_one_expression_do_not_mix_their_reasons() -> None:
    gates = {name: asyncio.Event() for name in "ab"}

    class Waits(BasePermission):
        async def has_permission(self, consumer: Any, action: Any = None) -> bool:
            await gates[consumer].wait()
            return False

        def denied(self, consumer: Any, action: Any = None) -> ConsumerError:
            return PermissionDenied(consumer)

    expression = Yes & (DenyAny | Waits)
    first = asyncio.create_task(refusal(expression, consumer="a"))
    second = asyncio.create_task(refusal(expression, consumer="b"))
    await asyncio.sleep(0)
    gates["b"].set()
    answer = await second
    gates["a"].set()
    assert answer is not None
    assert answer.message == "b"
    answer = await first
    assert answer is not None
    assert answer.message == "a"


# --- expressions: how they are written ---


def plain(consumer: Any) -> bool:
    return True


ours = [Yes, Yes(), Yes & Yes, Yes | No, ~No]


@pytest.mark.parametrize(
    ("left", "right"),
    [(left, right) for left in [*ours, plain, True] for right in [*ours, plain, True] if left in ours or right in ours],
)
@pytest.mark.parametrize(("sign", "kind"), [(operator.and_, And), (operator.or_, Or)])
async def test_classes_instances_expressions_callables_and_bools_combine_on_either_side(
    left: Any, right: Any, sign: Callable[[Any, Any], Any], kind: type[BasePermission]
) -> None:
    expression = sign(left, right)
    assert isinstance(expression, kind)
    assert await refusal(expression) is None


async def test_operands_keep_their_order_when_a_permission_stands_to_the_right() -> None:
    assert repr(plain & Yes) == "(plain & Yes)"
    assert repr(plain | Yes()) == "(plain | Yes)"
    assert repr(False & Yes) == "(DenyAny & Yes)"
    assert repr(True | Yes()) == "(AllowAny | Yes)"
    assert repr(plain & Yes()) == "(plain & Yes)"
    assert repr(plain | Yes) == "(plain | Yes)"


def test_an_expression_can_be_read() -> None:
    assert repr(IsAuthenticated & (Yes | plain) & ~No) == "(IsAuthenticated & (Yes | plain) & ~No)"


def test_double_negation_is_the_permission_itself() -> None:
    permission = No()
    assert ~~permission is permission
    assert isinstance(Not(Not(permission)), Not)


def test_expressions_of_one_sign_are_flat() -> None:
    assert len((Yes & (Yes & No) & Yes).operands) == 4
    assert len((Yes & (Yes | No) & Yes).operands) == 3


@pytest.mark.parametrize("expression", [Yes & No, Yes | No, ~Yes])
def test_expressions_cannot_be_changed(expression: Any) -> None:
    with pytest.raises(AttributeError, match="cannot be changed"):
        expression.operands = ()
    with pytest.raises(AttributeError, match="cannot be changed"):
        del expression.operands


@pytest.mark.parametrize("sign", [operator.and_, operator.or_])
@pytest.mark.parametrize("permission", [Yes, Yes()])
@pytest.mark.parametrize("other", ["admin", 1, [Yes]])
def test_what_is_no_permission_cannot_be_combined_with_one(sign: Any, permission: Any, other: Any) -> None:
    for sides in ((permission, other), (other, permission)):
        with pytest.raises(TypeError):
            sign(*sides)


def test_an_expression_of_nothing_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"And\(\) has no operands"):
        And()


def test_unions_in_annotations_stay_types() -> None:
    assert isinstance(Yes | None, UnionType)
    assert isinstance(None | Yes, UnionType)
    assert isinstance(Yes | int, UnionType)
    assert isinstance(int | Yes, UnionType)
    assert isinstance(Yes | list[int], UnionType)
    assert isinstance(None, Yes | None)


# --- what counts as a permission ---


async def with_action(consumer: Any, action: Any = None) -> bool:
    return bool(action == "say")


class Callables:
    def method(self, consumer: Any, action: Any = None) -> bool:
        return bool(action == "say")

    async def __call__(self, consumer: Any, action: Any) -> bool:
        return bool(action == "say")


@pytest.mark.parametrize(
    "function",
    [
        with_action,
        lambda consumer, action: action == "say",
        lambda consumer, act: act == "say",
        lambda consumer, *, action: action == "say",
        lambda consumer, strict=True, action=None: strict and action == "say",
        lambda *args, **kwargs: kwargs == {"action": "say"},
        Callables().method,
        Callables(),
        partial(with_action),
    ],
)
async def test_a_callable_is_given_the_action_if_it_takes_one(function: Any) -> None:
    assert await refusal(function, consumer="c", action="say") is None
    assert await refusal(function, consumer="c", action="other") is not None


@pytest.mark.parametrize(
    "function",
    [
        lambda consumer: consumer == "c",
        lambda consumer, level=3: (consumer, level) == ("c", 3),
        lambda consumer, *, level=3: (consumer, level) == ("c", 3),
        lambda *args: args == ("c",),
        lambda action: action == "c",
        partial(lambda consumer, level: (consumer, level) == ("c", 4), level=4),
    ],
)
async def test_a_callable_that_takes_no_action_is_given_none(function: Any) -> None:
    assert await refusal(function, consumer="c", action="say") is None
    assert await refusal(function, consumer="d", action="say") is not None


async def test_true_and_false_are_permissions() -> None:
    assert await refusal(True) is None
    assert type(await refusal(False)) is PermissionDenied


def test_instances_and_expressions_are_taken_as_they_are() -> None:
    instance, expression = Sync(True), Yes & No
    assert permission_of(instance) is instance
    assert permission_of(expression) is expression
    assert type(permission_of(Yes)) is Yes


@pytest.mark.parametrize("entry", ["IsAdmin", None, 1, object(), int, Callables, Yes | int, [Yes], list[int]])
def test_anything_else_is_no_permission(entry: Any) -> None:
    with pytest.raises(TypeError, match="is no permission; expected a class that derives from BasePermission"):
        permission_of(entry)


def test_a_class_that_does_not_derive_from_the_base_is_told_to() -> None:
    with pytest.raises(TypeError, match=r"Derive .* from fastapi_consumers\.permissions\.BasePermission"):
        permission_of(Callables)


@pytest.mark.parametrize("function", [lambda: True, lambda a, b, c: True, iter])
def test_a_callable_that_cannot_be_called_with_consumer_and_action_is_refused_at_once(function: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a callable of \(consumer\) or \(consumer, action=None\)"):
        permission_of(function)


def test_a_permission_that_takes_no_action_is_refused_at_once() -> None:
    class Old(BasePermission):
        def has_permission(self, consumer: Any) -> bool:  # type: ignore[override]
            return True

    with pytest.raises(TypeError, match=r"Old\.has_permission takes .*action=None"):
        permission_of(Old)
    with pytest.raises(TypeError, match=r"Old\.has_permission"):
        Yes & Old()


def test_a_class_that_cannot_be_made_is_an_error_that_names_it() -> None:
    class Unfinished(BasePermission):
        pass

    with pytest.raises(TypeError, match=r"Unfinished.*has_permission"):
        permission_of(Unfinished)
    with pytest.raises(TypeError, match=r"Sync.*answer"):
        permission_of(Sync)


# --- lists ---


def test_what_allows_everybody_is_dropped_from_a_list() -> None:
    assert compile_permissions([AllowAny, True, AllowAny()]) == ()
    assert len(compile_permissions([AllowAny, Yes, True, No])) == 2


def test_a_subclass_of_allow_any_may_refuse_and_is_kept() -> None:
    class AllowSome(AllowAny):
        def has_permission(self, consumer: Any, action: Any = None) -> bool:
            return False

    assert len(compile_permissions([AllowSome])) == 1


@pytest.mark.parametrize("entries", [Yes, Yes(), Yes & No, "Yes", plain, True, None])
def test_something_that_is_no_list_is_an_error_that_shows_the_list(entries: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a list of permissions. Put it into a list: \[.+\]"):
        compile_permissions(entries)


@both
async def test_a_list_is_asked_in_order_until_one_refuses(kind: type[Sync]) -> None:
    log: list[Any] = []
    first, second, third = (kind(answer, name, log) for answer, name in ((True, "a"), (False, "b"), (False, "c")))
    assert await message(first, second, third) == "b"
    assert log == [first, second]


async def test_no_permissions_allow() -> None:
    await check_permissions((), None)


def test_a_sync_check_never_gives_way_to_the_event_loop() -> None:
    check = check_permissions(compile_permissions([Yes & ~DenyAny, DenyAny | Yes]), None)
    with pytest.raises(StopIteration):
        check.send(None)
