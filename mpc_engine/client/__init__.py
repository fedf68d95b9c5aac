"""The analyst's way in: questions as Python objects, asked of a party or of a simulation alike."""

from __future__ import annotations

from mpc_engine.client.client import Client, connect
from mpc_engine.client.plans import Cost, Outline
from mpc_engine.client.question import Question
from mpc_engine.client.request import Request

__all__ = ["Client", "Cost", "Outline", "Question", "Request", "connect"]
