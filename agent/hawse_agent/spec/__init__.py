"""What is wanted: frozen dataclasses shared by controller and agent, and their codec.

Each spec is declared once, here. The controller validates with `pydantic.TypeAdapter` on these very
classes, the agent with the small strict codec of `codec.py`.
"""
