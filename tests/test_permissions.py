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
    Delivery,
    DenyAny,
    IsAuthenticated,
    Not,
    Or,
    asked_about,
    asked_at_all,
    check_about,
    check_permissions,
    compile_permissions,
    depends_on_action,
    is_delivered,
    permission_of,
)
from fastapi_consumers.permissions.conditions import About


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
    class Forgot(kind):
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

    return build(tree)


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
    class Counts(kind):
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
        def has_permission(self, consumer: Any) -> bool:
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


# --- groups, objects and deliveries ---

METHODS = ["has_group_permission", "has_object_permission", "has_delivery_permission"]
awaited = METHODS[:2]


def leaf(general: bool | None, own: dict[str, bool], name: str, log: list[Any], *, is_async: bool) -> BasePermission:
    """A permission that defines just what is given, and notes what it is asked."""

    def answering(method: str, answer: bool) -> Any:
        def sync(self: Any, consumer: Any, subject: Any = None) -> bool:
            log.append((name, method))
            return answer

        async def later(self: Any, consumer: Any, subject: Any = None) -> bool:
            await asyncio.sleep(0)
            return sync(self, consumer, subject)

        return later if is_async else sync

    answers = own if general is None else {"has_permission": general, **own}
    members = {method: answering(method, answer) for method, answer in answers.items()}
    made: Any = type(name, (BasePermission,), {**members, "message": name})
    return made()


#: What a leaf says in general and of this one thing; ``None``: it does not define the method. One of them it has to.
maybe = st.sampled_from([True, False, None])
opinions = st.tuples(maybe, maybe, st.booleans()).filter(lambda leaf: leaf[:2] != (None, None))
opinionated: st.SearchStrategy[Tree] = st.recursive(
    opinions,
    lambda inner: st.one_of(
        st.tuples(st.just("&"), inner, inner),
        st.tuples(st.just("|"), inner, inner),
        st.tuples(st.just("~"), inner),
    ),
    max_leaves=8,
)


def grown(tree: Tree, method: str, log: list[Any]) -> BasePermission:
    numbers = iter(range(100))

    def build(node: Tree) -> Any:
        match node:
            case ("&", left, right):
                return build(left) & build(right)
            case ("|", left, right):
                return build(left) | build(right)
            case ("~", inner):
                return ~build(inner)
            case (general, own, is_async):
                is_async = is_async and method != "has_delivery_permission"
                owns = {} if own is None else {method: own}
                return leaf(general, owns, str(next(numbers)), log, is_async=is_async)

    return build(tree)


def kleenes(tree: Tree, method: str | None, log: list[Any]) -> bool | None:
    """What Kleene's logic makes of the tree, and what has to be asked for that, in order. ``None`` is unknown."""
    numbers = iter(range(100))

    def numbered(node: Tree) -> Tree:
        if node[0] in ("&", "|", "~"):
            return (node[0], *map(numbered, node[1:]))
        return (str(next(numbers)), *node[:2])

    def chain(decides: bool, left: Tree, right: Tree) -> bool | None:
        first = value(left)
        if first is decides:
            return decides
        second = value(right)
        return decides if second is decides else None if None in (first, second) else not decides

    def value(node: Tree) -> bool | None:
        match node:
            case ("&", left, right):
                return chain(False, left, right)
            case ("|", left, right):
                return chain(True, left, right)
            case ("~", inner):
                found = value(inner)
                return None if found is None else not found
            case (name, general, own):
                answer: bool | None = None
                if general is not None:
                    log.append((name, "has_permission"))
                    answer = general
                if answer is not False and own is not None and method is not None:
                    log.append((name, method))
                    answer = own
                return answer
        raise AssertionError(node)

    return value(numbered(tree))


async def is_allowed(permissions: tuple[BasePermission, ...], method: str) -> bool:
    """Whether a client may do this one thing that was let in before."""
    asked = asked_about(permissions, method)
    if method == "has_delivery_permission":
        return is_delivered(asked, None, Delivery("said", "room", dict))
    try:
        await check_about(asked, None, About(method, "thing"))
    except ConsumerError:
        return False
    return True


@given(tree=opinionated, method=st.sampled_from(METHODS))
async def test_expressions_follow_kleenes_logic_and_ask_nothing_in_vain(tree: Tree, method: str) -> None:
    log: list[Any] = []
    expected_log: list[Any] = []
    permission = grown(tree, method, log)
    expected = kleenes(tree, method, expected_log)
    answer = getattr(permission, method)(None, Delivery("said", "room", dict))
    answered = answer if isinstance(answer, bool) else await answer
    if isinstance(permission, (And, Or, Not)):  # and no leaf, which answers for this method alone
        assert answered is (expected is not False)
        assert log == expected_log


@given(tree=opinionated)
async def test_at_connect_what_has_nothing_to_say_neither_allows_nor_refuses(tree: Tree) -> None:
    log: list[Any] = []
    expected_log: list[Any] = []
    permission = grown(tree, "has_group_permission", log)
    expected = kleenes(tree, None, expected_log)
    assert (await refusal(permission) is None) is (expected is not False)
    assert log == expected_log


@given(list_of_trees=st.lists(opinionated, max_size=3), method=st.sampled_from(METHODS))
async def test_a_list_allows_what_all_of_it_allow_in_general_and_in_particular(
    list_of_trees: list[Tree], method: str
) -> None:
    log: list[Any] = []
    permissions = compile_permissions([grown(tree, method, log) for tree in list_of_trees])
    general = [kleenes(tree, None, []) for tree in list_of_trees]
    own = [kleenes(tree, method, []) for tree in list_of_trees]
    assert (await refusal(*asked_at_all(permissions)) is None) is (False not in general)
    if False not in general:
        log.clear()
        assert await is_allowed(permissions, method) is (False not in own)
        assert len(log) <= 2 * sum(str(tree).count("(") for tree in list_of_trees)


class Banned(BasePermission):
    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return bool(consumer == "banned")


class Admin(BasePermission):
    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return bool(consumer == "admin")


class Owns(BasePermission):
    message = "It is not yours."

    def has_object_permission(self, consumer: Any, obj: Any) -> bool:
        return bool(obj == f"{consumer}'s")

    async def has_group_permission(self, consumer: Any, group: str) -> bool:
        return group == f"{consumer}'s"


@pytest.mark.parametrize("method", awaited)
@pytest.mark.parametrize(
    ("entries", "consumer", "thing", "lets_in", "allows"),
    [
        ([Owns], "ann", "ann's", True, True),
        ([Owns], "ann", "ben's", True, False),
        ([Admin | Owns], "admin", "ben's", True, True),
        ([Admin | Owns], "ann", "ben's", True, False),
        ([Admin | Owns], "ann", "ann's", True, True),
        ([~Owns], "ann", "ann's", True, False),
        ([~Owns], "ann", "ben's", True, True),
        ([~Banned & Owns], "ann", "ann's", True, True),
        ([~Banned & Owns], "banned", "banned's", False, True),
        ([~(Banned | Owns)], "ann", "ann's", True, False),
        ([~(Banned | Owns)], "ann", "ben's", True, True),
        ([~(Admin & Owns)], "admin", "admin's", True, False),
        ([~(Admin & Owns)], "ann", "ann's", True, True),
        ([Banned], "ann", "ann's", False, True),
    ],
)
async def test_truth_about_groups_and_objects(
    method: str, entries: list[Any], consumer: str, thing: str, lets_in: bool, allows: bool
) -> None:
    permissions = compile_permissions(entries)
    assert (await refusal(*permissions, consumer=consumer) is None) is lets_in
    try:
        await check_about(asked_about(permissions, method), consumer, About(method, thing))
    except PermissionDenied:
        assert not allows
    else:
        assert allows


async def test_a_refusal_about_an_object_says_what_the_permission_says() -> None:
    with pytest.raises(PermissionDenied, match="It is not yours"):
        await check_about(asked_about([Admin | Owns()], awaited[1]), "ann", About(awaited[1], "ben's"))


async def test_an_operand_is_told_which_action_it_is() -> None:
    permissions = asked_about(compile_permissions([(lambda consumer, action: action == "read") | Owns()]), awaited[1])
    assert depends_on_action(permissions)
    await check_about(permissions, "ann", About(awaited[1], "ben's"), "read")
    with pytest.raises(PermissionDenied):
        await check_about(permissions, "ann", About(awaited[1], "ben's"), "write")


def test_what_a_list_is_not_asked_is_left_out_of_it() -> None:
    permissions = compile_permissions([Yes & Owns & ~Banned, Admin, Owns])
    assert [repr(permission) for permission in asked_about(permissions, awaited[0])] == ["Owns", "Owns"]
    assert [repr(permission) for permission in asked_at_all(permissions)] == ["(Yes & Owns & ~Banned)", "Admin"]
    assert asked_about(permissions, "has_delivery_permission") == ()


@pytest.mark.parametrize("method", awaited)
@pytest.mark.parametrize("answer", [PermissionDenied, print, NotImplemented])
async def test_a_slip_of_the_pen_does_not_allow_here_either(method: str, answer: Any) -> None:
    slip: Any = type("Slip", (BasePermission,), {method: lambda self, consumer, subject: answer})
    with pytest.raises(TypeError, match=rf"Slip\.{method}\(\) returned .*expected True or False"):
        await check_about((slip(),), None, About(method, "thing"))


# --- deliveries ---


class Public(BasePermission):
    def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
        return delivery.event == "public"


PUBLIC, SECRET = Delivery("public", "room", dict), Delivery("secret", "room", dict)


def test_deliveries_follow_the_same_truth() -> None:
    def shown(consumer: str, *entries: Any) -> list[bool]:
        permissions = asked_about(compile_permissions(entries), "has_delivery_permission")
        return [is_delivered(permissions, consumer, delivery) for delivery in (PUBLIC, SECRET)]

    assert shown("ann", Public) == [True, False]
    assert shown("ann", ~Public) == [False, True]
    assert shown("ann", Banned | Public) == [True, False]
    assert shown("banned", Banned | Public) == [True, True]
    assert shown("ann", ~Banned & Public) == [True, False]
    assert shown("ann", Admin, Public & Public) == [True, False]
    assert (Banned | Public).has_delivery_permission("ann", SECRET) is False


def test_an_error_that_a_delivery_permission_raises_is_a_no_and_any_other_exception_is_not_swallowed() -> None:
    class Fails(BasePermission):
        def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
            raise consumer

    assert is_delivered((Fails(),), NotFound(), PUBLIC) is False
    assert is_delivered((~Fails(),), NotFound(), PUBLIC) is False
    with pytest.raises(ZeroDivisionError):
        is_delivered((Fails(),), ZeroDivisionError(), PUBLIC)


class LateDelivery(BasePermission):
    async def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
        return True


async def late(consumer: Any) -> bool:
    return True


@pytest.mark.parametrize(
    "make",
    [
        LateDelivery,
        lambda: Public | Admin,
        lambda: ~(Public & Admin),
        lambda: Public | late,
        lambda: Yes & (Admin | Public),
    ],
)
def test_what_would_be_awaited_for_each_event_is_refused_at_once(make: Any) -> None:
    with pytest.raises(TypeError, match=r"is async, and would be asked for each event"):
        permission_of(make())


def test_async_permissions_may_stand_beside_one_about_deliveries() -> None:
    permission_of(Admin & Public & (Admin | late) & ~Public)


def test_something_to_await_that_was_not_to_be_seen_before_withholds() -> None:
    async def later() -> bool:
        return True

    class Sly(BasePermission):
        def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> Any:
            return later()

    with pytest.raises(TypeError, match="Write `def`"):
        is_delivered((Sly(),), None, PUBLIC)


def test_the_data_of_a_delivery_is_decoded_at_first_use_and_once() -> None:
    calls: list[int] = []

    def load() -> dict[str, int]:
        calls.append(1)
        return {"a": 1}

    delivery = Delivery("said", "room", load, 7)
    assert (calls, repr(delivery)) == ([], "Delivery(event='said', group='room', offset=7)")
    assert delivery.data is delivery.data
    assert (delivery.data, calls) == ({"a": 1}, [1])


def test_a_permission_that_is_asked_nothing_is_refused_at_once() -> None:
    class Misspelt(BasePermission):
        def has_groups_permission(self, consumer: Any, group: str) -> bool:
            return False

    with pytest.raises(TypeError, match="Misspelt defines none of the methods has_permission, has_group_permission"):
        permission_of(Misspelt)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_cannot_be_called_as_it_will_be_is_refused_at_once(method: str) -> None:
    old: Any = type("Old", (BasePermission,), {method: lambda self, consumer: True})
    with pytest.raises(TypeError, match=rf"Old\.{method} takes .*Define it as {method}\(self, consumer, \w+\)"):
        permission_of(old)
