"""Runs programs on hosts: the talking that `hawse.playbook` leaves to others.

    session.py   one host of a run: plan, upload, apply, transfers, and what the report keeps of it
    fleet.py     many hosts: batches, failure budget, Ctrl-C, history
    offline.py   the plan of a host that has no agent yet
    kept.py      plans in files: `plan -o FILE`, `play --plan FILE`

Talks to hosts through `Reach` only, so that tests can put another fleet behind it.
"""
