"""One likelihood over the devices and processes that hold its rows."""

from jaxmle.distributed.peers import PeerLostError as PeerLostError
from jaxmle.distributed.rows import DistributedRows as DistributedRows
from jaxmle.distributed.rows import rows as rows

__all__ = ["DistributedRows", "PeerLostError", "rows"]
