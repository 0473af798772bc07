"""What a run or a comparison looks like: figures (``plots``), pages (``html``), terminal tables (``table``)."""
