"""The command lines of the twistd plugins: options in, a service out, nothing else."""
