# Answers questions, one JSON document a line on stdin: {"script", "arguments"}; what the script says, one line each.
# The modules are loaded once: each script runs in a process of its own.
use strict;
use warnings;
use Digest::SHA;
use Encode;
use JSON::PP;

$| = 1;
while (my $line = <STDIN>) {
    my $question = decode_json($line);
    my $child = open(my $said, '-|') // die "no process: $!";
    if (!$child) {
        # A warning is a defect.
        $SIG{__WARN__} = sub { print "warning in Perl: @_"; exit 3 };
        @ARGV = @{ $question->{arguments} };
        do $question->{script};
        print $@;
        exit 2;
    }
    local $/;
    my $text = <$said>;
    close $said;
    print encode_json({ code => $? >> 8, said => $text }), "\n";
}
