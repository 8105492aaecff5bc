"""The project's own bench, which does not ship: peers, campaigns, fuzzing, faults, and the documents made from records.

``python -m bench`` lists its parts; ``python -m bench NAME ...`` runs one.
"""
