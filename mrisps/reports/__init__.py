"""From saved results to figures, tables and one HTML file that needs nothing else.

Reports know arrays and plain values only, as they are in result files; they do not compute or read anything.

=============  =======================================================================================================
`figures`      matplotlib figures of images, errors and masks, and their PNG bytes
`facts`        tables of what a certificate, a mask or a recipe says, in words
`html`         `Report` and `render`: one self-contained HTML page
`demo`         the report of the demonstration
`reconstruction`  the report of one reconstructed file
`evaluation`   the report of recipes and baselines on many files with references
=============  =======================================================================================================
"""
