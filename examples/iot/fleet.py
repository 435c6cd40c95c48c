"""What the fleet has measured: the last values of each device, and the way there."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

Sensor = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,29}$")]

#: How many values of a sensor are remembered.
LENGTH = 60
#: How many sensors a device may have: whoever makes up names shall not fill the memory.
MAX_SENSORS = 16


class Reading(BaseModel):
    """One value of one sensor. ``at`` is in seconds since 1970, by the device's clock."""

    sensor: Sensor
    value: Annotated[float, Field(allow_inf_nan=False)]
    at: Annotated[float, Field(ge=0, le=1e11)]


class DeviceView(BaseModel):
    """A device as the page gets it: by sensor its last values, the oldest first."""

    id: str
    sensors: dict[str, list[Reading]]


class Fleet:
    """The devices of this process."""

    def __init__(self, devices: Iterable[str]) -> None:
        self._devices: dict[str, dict[str, deque[Reading]]] = {device: {} for device in devices}

    def add(self, device: str, readings: Sequence[Reading]) -> list[Reading]:
        """Take a batch. Returns what of it is new: a batch that was sent again, because its answer was lost, is not."""
        sensors, added = self._devices[device], []
        for reading in readings:
            values = sensors.get(reading.sensor)
            if values is None:
                if len(sensors) == MAX_SENSORS:
                    continue
                values = sensors[reading.sensor] = deque(maxlen=LENGTH)
            if not values or reading.at > values[-1].at:
                values.append(reading)
                added.append(reading)
        return added

    def view(self) -> list[DeviceView]:
        return [
            DeviceView(id=device, sensors={name: list(values) for name, values in sensors.items()})
            for device, sensors in self._devices.items()
        ]
