"""Constitutional AI (Bai et al. 2022) as a Hydra-configured experiment suite."""

import logging

# When it is imported it looks for a kernel on a hub, and warns that there is none.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
