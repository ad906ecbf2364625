"""What lists and reports look like: Go templates, tables, Docker's fields and units. Contacts nobody.

    template   syntax → nodes; template executes them over values; functions are those that templates may call
    values     what Go would print for a value, as text and as JSON
    listing    rows of a list through `--format`: json, table, a template
    containers images networks volumes stats usage    what a row of each list has, by Docker's names

The docker command line is the judge: the same `--format` on the same answers gives the same bytes.
"""
