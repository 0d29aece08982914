"""Round trips against a local system: its address, and tokens of its users.

What belongs here: what an operator would type for a real sidecar, found in the local system. What must never
be here: how the local system starts, and how round trips are made.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from entra_fast.cli import dev_system, dev_welcome
from entra_fast.cli.roundtrip.steps import Inputs

FREE_PORTS = dev_system.Options(emulator_port=0, generator_port=0, sidecar_port=0)


def with_local_system(given: Inputs, run: Callable[[str, Inputs], int]) -> int:
    """Start the example applications, call `run` with the address of the first one's sidecar and what it may
    ask for, and stop everything.

    Args:
        given: takes precedence over what the local system has.

    Raises:
        ConfigurationError: the local system cannot start.
    """
    return asyncio.run(_with_local_system(given, run))


async def _with_local_system(given: Inputs, run: Callable[[str, Inputs], int]) -> int:
    async with dev_system.local_system(FREE_PORTS) as system:
        own = {name: value for name, value in dataclasses.asdict(given).items() if value is not None}
        inputs = dataclasses.replace(inputs_of(system), **own)
        # The requests block, and the loop has to answer them.
        return await asyncio.get_running_loop().run_in_executor(
            None, run, system.sidecars[0].running.base_url, inputs
        )


def inputs_of(system: dev_system.LocalSystem) -> Inputs:
    """What the application of the first sidecar may ask for."""
    local, own = system.emulator.local, system.sidecars[0].application
    call = dev_welcome.call_by_a_user(local, own)
    if call is None:
        return Inputs(entra_id_target=own.name)
    caller, user, target = call
    _, token = local.mint(caller, own.name, user)
    return Inputs(entra_id_target=target, entra_id_user=token)
