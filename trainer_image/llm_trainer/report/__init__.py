"""The run report: what a training was asked, did and made, as a page and as Markdown in its run folder."""
