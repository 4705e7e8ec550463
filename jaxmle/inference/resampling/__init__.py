"""Bootstrap, jackknife and calibration by simulation."""
