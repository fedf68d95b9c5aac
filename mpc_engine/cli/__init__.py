"""The command line: `mpc-engine`."""
