"""What a run or a comparison looks like to people: figures (``plots``), pages (``html``), terminal tables (``table``)."""
