"""Holders of what a likelihood closes over: how each is read, and how it is changed."""

import array
import collections
import contextvars
import ctypes
import dataclasses
import enum
import functools
import operator
import queue
import threading
import types
import typing
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl

# ---------------------------------------------------------------- holders of an array, found at ``c`` or ``["c"]``


class Plain:
    pass


class Slotted:
    __slots__ = ("c",)


@dataclasses.dataclass
class Data:
    c: typing.Any = None


class Hidden:
    """Attributes by a dictionary of its own."""

    def __init__(self):
        self.__dict__["inside"] = {}

    def __getattr__(self, name):
        return self.inside[name]

    def __setattr__(self, name, value):
        self.inside[name] = value


class Computed:
    """An attribute that is a property of another."""

    @property
    def c(self):
        return self.other

    @c.setter
    def c(self, value):
        self.other = value


class OwnDict(dict):
    pass


class OwnArray(np.ndarray):
    """Without ``__array_finalize__``: a view has none of its attributes."""


def of_attribute(holder):
    return (lambda: holder.c), (lambda value: setattr(holder, "c", value))


def of_item(holder, key="c"):
    return (lambda: holder[key]), (lambda value: operator.setitem(holder, key, value))


def a_class():
    return type("Settings", (), {})


def a_base_class():
    base = a_class()
    return (lambda: type("Child", (base,), {})().c), (lambda value: setattr(base, "c", value))


def a_class_of_an_object():
    kind = a_class()
    settings = kind()
    return (lambda: settings.c), (lambda value: setattr(kind, "c", value))


def a_chain():
    model = Plain()
    model.config = Plain()
    return (lambda: model.config.c), (lambda value: setattr(model.config, "c", value))


def a_module_of_modules():
    outer, inner = types.ModuleType("outer"), types.ModuleType("outer.inner")
    outer.inner = inner
    return (lambda: outer.inner.c), (lambda value: setattr(inner, "c", value))


def an_attribute_by_a_computed_name():
    module, name = types.ModuleType("settings"), "".join(["c"])
    return (lambda: getattr(module, name)), (lambda value: setattr(module, name, value))


def a_deque():
    return of_item(collections.deque([None]), 0)


def an_object_array():
    return of_item(np.array([None, "x"], dtype=object), 0)


def nested_containers():
    box = [({"c": None},)]
    return (lambda: box[0][0]["c"]), (lambda value: operator.setitem(box[0][0], "c", value))


def a_chain_map():
    inner = {}
    outer = collections.ChainMap({}, inner)
    return (lambda: outer["c"]), (lambda value: operator.setitem(inner, "c", value))


def a_read_only_view():
    inner = {}
    outer = types.MappingProxyType(inner)
    return (lambda: outer["c"]), (lambda value: operator.setitem(inner, "c", value))


def a_partial():
    box = {}
    return functools.partial(lambda box: box["c"], box), of_item(box)[1]


def a_decorated_function():
    box = {}

    @functools.wraps(len)
    def decorated():
        return box["c"]

    return decorated, of_item(box)[1]


def a_function_with_an_attribute():
    def function():
        return function.c

    return function, lambda value: setattr(function, "c", value)


def a_default():
    def function(c=None):
        return c

    return function, lambda value: setattr(function, "__defaults__", (value,))


def a_keyword_default():
    def function(*, c=None):
        return c

    return function, lambda value: operator.setitem(function.__kwdefaults__, "c", value)


def a_partial_method():
    box = {}

    class Model:
        def read(self, box):
            return box["c"]

        shift = functools.partialmethod(read, box)

    model = Model()
    return (lambda: model.shift()), of_item(box)[1]


def a_class_method():
    class Model:
        @classmethod
        def shift(cls):
            return cls.c

    return Model.shift, lambda value: setattr(Model, "c", value)


def a_weak_reference():
    owner = Plain()
    reference = weakref.ref(owner)
    owner.itself = owner  # kept alive by a circle
    return (lambda: reference().c), (lambda value: setattr(owner, "c", value))


def an_attrgetter():
    owner, get = Plain(), operator.attrgetter("c")
    return (lambda: get(owner)), (lambda value: setattr(owner, "c", value))


def a_descriptor():
    class Field:
        def __get__(self, owner, kind=None):
            return self.held

    field = Field()
    model = type("Model", (), {"c": field})()
    return (lambda: model.c), (lambda value: setattr(field, "held", value))


def a_metaclass():
    class Meta(type):
        def __getattr__(cls, name):
            return cls.store[name]

    class Settings(metaclass=Meta):
        store: typing.ClassVar = {}

    return (lambda: Settings.c), of_item(Settings.store)[1]


def an_enum():
    class Setting(enum.Enum):
        C = 0.0

    return (lambda: Setting.C.value), (lambda value: setattr(Setting.C, "_value_", value))


def the_body_of_a_loop():
    """jax knows the body of a loop by its identity."""
    box = {}

    def body(carry, x):
        return carry, x + jnp.asarray(box["c"])

    return (lambda: jax.lax.scan(body, 0.0, jnp.zeros(1))[1][0]), of_item(box)[1]


def a_checkpointed_function():
    box = {}
    inner = jax.checkpoint(lambda x: x + jnp.asarray(box["c"]))
    return (lambda: inner(jnp.zeros(()))), of_item(box)[1]


def a_jitted_helper():
    box = {}
    inner = jax.jit(lambda x: x + jnp.asarray(box["c"]))
    return (lambda: inner(jnp.zeros(()))), of_item(box)[1]


def a_jitted_method():
    class Model:
        @functools.partial(jax.jit, static_argnums=0)
        def shift(self, x):
            return x + jnp.asarray(self.c)

    model = Model()
    return (lambda: model.shift(jnp.zeros(()))), (lambda value: setattr(model, "c", value))


def a_vmapped_helper():
    box = {}
    inner = jax.vmap(lambda x: x + jnp.asarray(box["c"])[0])
    return (lambda: inner(jnp.zeros(3))), of_item(box)[1]


def a_property_of_a_class():
    class Meta(type):
        @property
        def c(cls):
            return cls.inside

    settings = Meta("Settings", (), {})
    return (lambda: settings.c), (lambda value: setattr(settings, "inside", value))


def an_attribute_of_an_enum_member():
    class Setting(enum.Enum):
        C = 1

    return of_attribute(Setting.C)


def a_member_of_numbers():
    class Setting(enum.IntFlag):
        C = 1

    return of_attribute(Setting.C)


def a_helper_of_a_cache():
    """A factory under ``lru_cache`` returns one jitted function, of which jax keeps the program."""
    box = {}

    @functools.lru_cache
    def factory():
        return jax.jit(lambda x: x + jnp.asarray(box["c"]))

    return (lambda: factory()(jnp.zeros(()))), of_item(box)[1]


def a_thread_local():
    return of_attribute(threading.local())


def a_context_variable():
    variable = contextvars.ContextVar("c")
    return variable.get, variable.set


def a_data_frame_of_attributes():
    frame = pd.DataFrame({"y": np.zeros(3)})
    return (lambda: frame.attrs["c"]), (lambda value: operator.setitem(frame.attrs, "c", value))


HOLDERS = {
    "a plain object": lambda: of_attribute(Plain()),
    "a SimpleNamespace": lambda: of_attribute(types.SimpleNamespace()),
    "slots": lambda: of_attribute(Slotted()),
    "a dataclass": lambda: of_attribute(Data()),
    "attributes by __getattr__": lambda: of_attribute(Hidden()),
    "a property": lambda: of_attribute(Computed()),
    "a class": lambda: of_attribute(a_class()),
    "a base class": a_base_class,
    "the class of an object": a_class_of_an_object,
    "an attribute of an attribute": a_chain,
    "a module": lambda: of_attribute(types.ModuleType("settings")),
    "a module of a module": a_module_of_modules,
    "a computed name": an_attribute_by_a_computed_name,
    "a dict": lambda: of_item({}),
    "a defaultdict": lambda: of_item(collections.defaultdict(float)),
    "an OrderedDict": lambda: of_item(collections.OrderedDict()),
    "a UserDict": lambda: of_item(collections.UserDict()),
    "a dict of one's own": lambda: of_item(OwnDict()),
    "a ChainMap": a_chain_map,
    "a mapping proxy": a_read_only_view,
    "a list": lambda: of_item([None], 0),
    "a deque": a_deque,
    "an object array": an_object_array,
    "containers in containers": nested_containers,
    "a partial": a_partial,
    "a partial method": a_partial_method,
    "a class method": a_class_method,
    "a decorated function": a_decorated_function,
    "an attribute of a function": a_function_with_an_attribute,
    "a default": a_default,
    "a keyword default": a_keyword_default,
    "a weak reference": a_weak_reference,
    "an attrgetter": an_attrgetter,
    "a descriptor": a_descriptor,
    "a metaclass": a_metaclass,
    "an enum": an_enum,
    "the body of a loop": the_body_of_a_loop,
    "a checkpointed function": a_checkpointed_function,
    "a jitted helper": a_jitted_helper,
    "a jitted method": a_jitted_method,
    "a vmapped helper": a_vmapped_helper,
    "a property of a class": a_property_of_a_class,
    "an attribute of an enum member": an_attribute_of_an_enum_member,
    "an attribute of a flag": a_member_of_numbers,
    "a jitted helper of a cached factory": a_helper_of_a_cache,
    "a thread's own": a_thread_local,
    "a context variable": a_context_variable,
    "the attrs of a frame": a_data_frame_of_attributes,
    "an attribute of an array": lambda: of_attribute(np.zeros(3).view(OwnArray)),
}


# ---------------------------------------------------------------- holders that are buffers or tables of their own


def changed_by(holder, read, change):
    return lambda: (functools.partial(read, holder), functools.partial(change, holder))


def queue_of(value):
    holder = queue.Queue()
    holder.put(value)
    return holder


def fill(holder, value=2.0):
    holder[...] = value


OWNER = Plain()
OWNER.c = 0.0

BUFFERS = {
    "every other entry of an array": changed_by(np.zeros(6), lambda a: a[::2], fill),
    "an array without axes": changed_by(np.zeros(()), lambda a: a, fill),
    "small integers": changed_by(
        np.zeros(3, np.int8), lambda a: a.astype(float), lambda a: fill(a, 2)
    ),
    "bfloat16": changed_by(np.zeros(3, jnp.bfloat16), lambda a: a.astype(float), fill),
    "a field of records": changed_by(
        np.zeros(3, [("c", "f8"), ("k", "i4")]),
        lambda a: np.ascontiguousarray(a["c"]),
        lambda a: fill(a["c"]),
    ),
    "bytes in dictionaries in a list": changed_by(
        [{"c": np.zeros(3, np.int8)}], lambda a: a[0]["c"] + 0.0, lambda a: fill(a[0]["c"])
    ),
    "truth values": changed_by(np.zeros(3, bool), lambda a: 2.0 * a, lambda a: fill(a, True)),
    "half precision": changed_by(np.zeros(3, np.float16), lambda a: a.astype(float), fill),
    "a byte order of another machine": changed_by(np.zeros(3, ">f4"), jnp.asarray, fill),
    "more than double precision": changed_by(np.zeros(3, np.longdouble), jnp.asarray, fill),
    "records of objects": changed_by(
        np.array([([0.0],)] * 3, [("c", "O")]),
        lambda a: np.array([inner[0] for inner in a["c"]]),
        lambda a: [operator.setitem(inner, 0, 2.0) for inner in a["c"]],
    ),
    "a record": changed_by(
        np.zeros(1, [("c", "f8"), ("k", "i4")]), lambda a: a[0]["c"], lambda a: fill(a["c"])
    ),
    "variable strings": changed_by(
        np.array(["0"] * 3, np.dtypes.StringDType()),
        lambda a: a.astype(float),
        lambda a: fill(a, "2"),
    ),
    "a masked array": changed_by(np.ma.zeros(3), lambda a: a.filled(0.0), fill),
    "a mask": changed_by(
        np.ma.zeros(3), lambda a: a.filled(2.0), lambda a: setattr(a, "mask", True)
    ),
    "an array of the standard library": changed_by(
        array.array("d", [0.0]), lambda a: a[0], lambda a: operator.setitem(a, 0, 2.0)
    ),
    "a bytearray": changed_by(
        bytearray(3), lambda a: float(a[0]), lambda a: operator.setitem(a, 0, 2)
    ),
    "a memoryview": changed_by(
        memoryview(bytearray(3)), lambda a: float(a[0]), lambda a: operator.setitem(a, 0, 2)
    ),
    "numbers of C": changed_by(
        (ctypes.c_double * 1)(), lambda a: a[0], lambda a: operator.setitem(a, 0, 2.0)
    ),
    "a queue": changed_by(
        queue_of(0.0), lambda a: a.queue[0], lambda a: operator.setitem(a.queue, 0, 2.0)
    ),
    "a weak value": changed_by(
        weakref.WeakValueDictionary(c=OWNER),
        lambda a: a["c"].c,
        lambda a: setattr(a["c"], "c", 2.0),
    ),
    "a set": changed_by({0.0}, max, lambda a: a.add(2.0)),
    "a counter": changed_by(collections.Counter(c=0), lambda a: a["c"], lambda a: a.update(c=2)),
    "an order of keys": changed_by(
        collections.OrderedDict(a=0.0, b=2.0),
        lambda a: next(iter(a.values())),
        lambda a: a.move_to_end("a"),
    ),
    "a pandas series": changed_by(
        pd.Series(np.zeros(3)),
        lambda s: s.to_numpy(),
        lambda s: s.update(pd.Series(np.full(3, 2.0))),
    ),
    "an index": changed_by(
        pd.Series(np.zeros(3), index=[0, 0, 0]),
        lambda s: s.index.to_numpy() + 0.0,
        lambda s: setattr(s, "index", [2, 2, 2]),
    ),
    "a polars frame": changed_by(
        pl.DataFrame({"c": np.zeros(3)}),
        lambda f: f["c"].to_numpy(),
        lambda f: f.replace_column(0, pl.Series("c", np.full(3, 2.0))),
    ),
    "a nullable column": changed_by(
        pd.Series([0.0, 0.0, 0.0], dtype="Float64"),
        lambda s: np.where(s.isna(), 6.0, 0.0),
        lambda s: operator.setitem(s, 0, pd.NA),
    ),
    "a cell of a frame": changed_by(
        pd.DataFrame({"c": np.zeros(3), "k": ["a", "b", "c"]}),
        lambda f: np.where(f["k"] == "z", 6.0, 0.0),
        lambda f: operator.setitem(f.loc, (0, "k"), "z"),
    ),
    "a cell of a polars frame": changed_by(
        pl.DataFrame({"c": np.zeros(3)}),
        lambda f: f["c"].to_numpy(),
        lambda f: operator.setitem(f, (0, "c"), 6.0),
    ),
    "the sign of zero": changed_by(
        [0.0], lambda a: 1.0 - np.copysign(1.0, a[0]), lambda a: operator.setitem(a, 0, -0.0)
    ),
    "False, then 0": changed_by(
        [False], lambda a: 2.0 * (a[0] is not False), lambda a: operator.setitem(a, 0, 0)
    ),
}
