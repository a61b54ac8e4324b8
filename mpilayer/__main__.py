"""``python -m mpilayer``."""

from mpilayer.cli.main import main

raise SystemExit(main())
