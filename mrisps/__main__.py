"""``python -m mrisps``: the command line without the installed script."""

from mrisps.cli.main import main

raise SystemExit(main())
