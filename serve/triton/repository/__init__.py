"""The repository: versions of models as they lie on disk: placed, recorded, checked, and slowed down for a drill."""
