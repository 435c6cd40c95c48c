"""L with orjson for json: what a faster serializer alone is worth.

bench-title: Starlette by hand, orjson
bench-venv: base
bench-dialect: plain
"""

import orjson
import raw_starlette


class Json:
    """The two functions of ``json`` that L calls."""

    loads = staticmethod(orjson.loads)

    @staticmethod
    def dumps(value: object) -> str:
        return orjson.dumps(value).decode()


raw_starlette.json = Json
app = raw_starlette.app
