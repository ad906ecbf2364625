"""Docker's command line for containers, as tables of flags and fields of Docker's API. Contacts nobody."""
