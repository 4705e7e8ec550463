"""What every procedure runs on: compiled pieces, devices, fingerprints, files, checkpoints and
progress.
"""
