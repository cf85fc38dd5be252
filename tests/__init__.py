"""The tests mirror hms_addons/: hms_addons/a/b.py has tests/a/test_b.py."""
