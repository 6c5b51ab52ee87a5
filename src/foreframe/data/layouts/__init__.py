"""Source formats, one file each; `contract` says what a layout holds, `registry` finds them."""
