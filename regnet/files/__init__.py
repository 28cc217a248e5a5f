"""Files within bounds: what strangers wrote is read, and what users keep is written, with care."""
