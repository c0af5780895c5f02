"""``python -m seatrial``: the console command."""

import sys

if __name__ == "__main__":
    from seatrial.serve.command import main

    sys.argv[0] = "seatrial"
    sys.exit(main())
