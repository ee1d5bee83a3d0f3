// Found only if the real header was not: see .cargo/config.toml.
#error "RocksDB is not built for this checkout yet. Run scripts/setup.sh (the first time on a machine it takes about 15 minutes)."
#include "run scripts/setup.sh"
