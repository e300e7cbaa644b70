#!/usr/bin/env perl
# A verifier of draws, written from docs/draw-rules.md alone; its numbers are the numbers of the sections there.
# Needs only Perl 5.14:  perl verify_draw.pl [--lead SECONDS] [--registrations TREE] FOLDER [MANIFEST_HASH ...]
# FOLDER holds phase-1, phase-2, ...; pass one hash per phase, as it was published before the draw. The lead is that of
# a chain other than quicknet. TREE is a copy of the folder registrations/<campaignId>, which holds tile/entries.
# Exits with 1 if anything does not hold or is incomplete; the last line is the verdict.
# Not checked: the signature and the key of the beacon. That needs BLS: compare the signature with the beacon.
use strict;
use warnings;
use Digest::SHA qw(sha256 sha256_hex);
use Encode qw(decode FB_CROAK);
use JSON::PP;

my $QUICKNET = '52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971';
my $MOST = 9007199254740991;
my $LAST_SECOND = 253402300799;
my $ID = qr/[A-Za-z0-9_-]{1,64}/;
my $MARKET = qr/(?!-\z)$ID/;
my $UNIT = qr/u-[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]/;
my $HEX = qr/[0-9a-f]{64}/;
my $ANY = qr/.*/s;
# A text that is not empty or white.
my $REASON = qr/.*[^\s\x0b\x1c-\x1f].*/su;
my $ZEROS = '0' x 64;
my @OUTCOMES = qw(WINNER WAITLIST UNSELECTED HOUSEHOLD_LIMIT STRUCK UNCLAIMED);
my @OUTPUTS = qw(result.txt cutoffs.json summary.json);
my $json = JSON::PP->new->canonical->utf8->max_depth(64);
my $value_json = JSON::PP->new->allow_nonref;
my ($where, $lead, $tree) = ('', undef, undef);

sub refuse { my $why = "@_"; $why =~ s/[^\x20-\x7e]/?/g; die "$where: $why\n" }
# A failed match is no argument at all in a list: the first one is a scalar.
sub need($;@) { my ($holds, @why) = @_; refuse(@why) unless $holds }
# A number in JSON and a text, which Perl itself does not distinguish.
sub is_count {
    my ($value, $least) = @_;
    return defined $value && !ref $value && $value_json->encode($value) =~ /\A(?:0|[1-9][0-9]{0,15})\z/
        && $value >= $least && $value <= $MOST;
}

sub is_text {
    my ($value, $form) = @_;
    return defined $value && !ref $value && $value_json->encode($value) =~ /\A"/ && $value =~ /\A$form\z/;
}

# Milliseconds since 1970 of a time, undefined for what is none.
sub time_of {
    my ($value) = @_;
    return undef unless is_text($value, qr/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z/);
    my ($y, $m, $d, $h, $min, $s, $ms) = $value =~ /(\d+)/g;
    my $leap = ($y % 4 == 0 && $y % 100 != 0) || $y % 400 == 0;
    my @days = (31, 28 + $leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31);
    return undef unless $y > 0 && $m >= 1 && $m <= 12 && $d >= 1 && $d <= $days[$m - 1] && $h < 24 && $min < 60 && $s < 60;
    my $before = $y - 1;
    my $day = 365 * $before + int($before / 4) - int($before / 100) + int($before / 400) - 719162 + $d - 1;
    $day += $days[$_] for 0 .. $m - 2;
    return ((($day * 24 + $h) * 60 + $min) * 60 + $s) * 1000 + $ms;
}

sub keys_are {
    my ($hash, @keys) = @_;
    need(ref $hash eq 'HASH' && "@{[sort keys %$hash]}" eq "@{[sort @keys]}", "keys should be @keys");
}

sub list_of { my ($value, $what) = @_; need(ref $value eq 'ARRAY', $what); return @$value }

sub content {
    my ($path) = @_;
    $where = $path;
    open(my $file, '<:raw', $path) or refuse('cannot be read');
    local $/;
    my $bytes = <$file>;
    return defined $bytes ? $bytes : '';
}

sub canonical {
    my ($document) = @_;
    my $bytes = $json->encode($document);
    # RFC 8785 does not escape it.
    $bytes =~ s/(?<!\\)((?:\\\\)*)\\u007f/$1\x7f/g;
    return $bytes;
}

sub parsed {
    my ($bytes, $kind) = @_;
    my $copy = $bytes;
    my $document = eval { decode('UTF-8', $copy, FB_CROAK); $json->decode($bytes) };
    need(ref $document eq $kind && canonical($document) eq $bytes, 'not canonical JSON');
    (my $bare = $bytes) =~ s/"(?:[^"\\]|\\.)*"//gs;
    need($bare !~ /\d[.eE]/, 'a number that is no integer');
    $_ =~ /\A-?[0-9]{1,16}\z/ && abs($_) <= $MOST or refuse('a number that is too large') for $bare =~ /(-?\d+)/g;
    return $document;
}

sub document {
    my ($path) = @_;
    my $bytes = content($path);
    return (parsed($bytes, 'HASH'), sha256_hex($bytes));
}

sub lines_of {
    my ($path) = @_;
    my $bytes = content($path);
    need($bytes eq '' || ($bytes =~ /\n\z/ && $bytes !~ /[^\x21-\x7e\n]/), 'ASCII lines, each with a line feed');
    my @lines = split /\n/, $bytes, -1;
    pop @lines;
    return (\@lines, sha256_hex($bytes));
}

sub in_order { my $before = ''; for (@_) { need($_ gt $before, "$_ is not in order"); $before = $_ } return 1 }

# 1 Leaves: [ref, unit, weight, {segments}, [preferences]]
sub leaves_of {
    my ($path) = @_;
    my ($lines) = lines_of($path);
    my (@leaves, %weight);
    for my $line (@$lines) {
        my ($ref, $unit, $weight, $segments, $wishes) =
            $line =~ /\A($ID)\|($ID)\|([1-9]|[1-5][0-9]|6[0-4])\|((?:$ID(?:,$ID)*)?)\|($ID(?:,$ID)*)\z/
            or refuse("no leaf: $line");
        need($ref !~ /\Au-[A-Za-z0-9_-]{43}\z/, "$ref looks like a unit");
        need($unit eq $ref || $unit =~ /\A$UNIT\z/, "$unit is no unit");
        need(($weight{$unit} //= $weight) == $weight, "unit $unit has two weights");
        my @segments = split /,/, $segments;
        in_order(@segments);
        my @wishes = split /,/, $wishes;
        my %once = map { $_ => 1 } @wishes;
        need(keys %once == @wishes, "a market twice: $line");
        push @leaves, [$ref, $unit, $weight, { map { $_ => 1 } @segments }, \@wishes];
    }
    in_order(map { $_->[0] } @leaves);
    return (\@leaves, $lines);
}

# 2 Roots
sub root_of {
    my @row = map { sha256("\0$_") } @{ $_[0] };
    return sha256_hex('') unless @row;
    while (@row > 1) {
        my @above;
        push @above, @row > 1 ? sha256("\1" . shift(@row) . shift @row) : shift @row while @row;
        @row = @above;
    }
    return unpack 'H*', $row[0];
}

# 3 Manifest
sub check_markets {
    my @markets = list_of($_[0], 'markets');
    need(@markets <= 32767, 'markets');
    for my $market (@markets) {
        keys_are($market, qw(capacity laterReserves marketId reserves));
        need(is_text($market->{marketId}, $MARKET) && is_count($market->{capacity}, 0), 'market');
        for my $key (qw(reserves laterReserves)) {
            my (%once, $seats);
            for my $reserve (list_of($market->{$key}, $key)) {
                keys_are($reserve, qw(seats segment));
                need(is_text($reserve->{segment}, $ID) && is_count($reserve->{seats}, 0) && !$once{ $reserve->{segment} }++, $key);
                $seats += $reserve->{seats};
            }
            need($key ne 'reserves' || ($seats || 0) <= $market->{capacity}, 'more reserved seats than the capacity');
        }
    }
    in_order(map { $_->{marketId} } @markets);
}

# What the reserves of the phases from 2 on take, by "market|segment".
sub check_declared {
    my ($manifest, $used) = @_;
    for my $market (@{ $manifest->{markets} }) {
        my @later = @{ $market->{laterReserves} };
        for my $reserve (@{ $market->{reserves} }) {
            shift @later while @later && $later[0]{segment} ne $reserve->{segment};
            my $declared = shift @later or refuse("reserve $reserve->{segment} is not declared");
            my $sum = $used->{"$market->{marketId}|$reserve->{segment}"} += $reserve->{seats};
            need($sum <= $declared->{seats}, "more seats for $reserve->{segment} than declared");
        }
    }
}

sub check_manifest {
    my ($manifest) = @_;
    need(!is_text($manifest->{algorithm}, 'vf1'), 'this draw follows the rules vf1, which are gone: it can only be annulled');
    keys_are($manifest, qw(algorithm asOf campaignId count drawId markets phase previous registrations root seedSource
        strikesHash strikesRoot waitlistSize winsPerUnit));
    need(is_text($manifest->{algorithm}, 'vf2'), 'algorithm');
    need(is_text($manifest->{campaignId}, $ID) && is_text($manifest->{drawId}, quotemeta $manifest->{campaignId}), 'ids');
    need(is_text($manifest->{$_}, $HEX), $_) for qw(root strikesHash strikesRoot);
    need(is_count($manifest->{count}, 0) && is_count($manifest->{winsPerUnit}, 1), 'count, winsPerUnit');
    need(!defined $manifest->{waitlistSize} || is_count($manifest->{waitlistSize}, 0), 'waitlistSize');
    need(is_count($manifest->{phase}, 1) && defined time_of($manifest->{asOf}), 'phase, asOf');
    check_markets($manifest->{markets});
    check_declared($manifest, {}) if $manifest->{phase} > 1;
    my ($previous, $source, $registered) = @$manifest{qw(previous seedSource registrations)};
    need(defined $previous == ($manifest->{phase} > 1), 'previous');
    if (defined $previous) {
        keys_are($previous, qw(manifestHash resultHash));
        need(is_text($_, $HEX), 'previous') for values %$previous;
    }
    keys_are($source, qw(chain kind round));
    need(is_text($source->{chain}, $HEX) && is_text($source->{kind}, 'drand') && is_count($source->{round}, 1), 'seedSource');
    return unless defined $registered;
    keys_are($registered, qw(erased excluded notices root size withdrawn));
    need(is_text($registered->{root}, $HEX) && is_count($registered->{size}, 0), 'registrations');
    my $sum = $manifest->{count};
    for (qw(erased excluded notices withdrawn)) { need(is_count($registered->{$_}, 0), 'registrations'); $sum += $registered->{$_} }
    need($sum == $registered->{size}, 'registrations: not as many as their size');
}

# 4 Seed. The chain, as [genesis, period].
sub chain_of {
    my ($folder, $hash) = @_;
    my $path = "$folder/chain.json";
    if ($hash eq $QUICKNET) {
        $where = $path;
        need(!-e $path, 'a draw of quicknet has no such file');
        return [1692803367, 3];
    }
    my ($chain) = document($path);
    keys_are($chain, qw(genesis groupHash id period publicKey scheme));
    need(is_count($chain->{genesis}, 1) && $chain->{genesis} <= $LAST_SECOND, 'genesis');
    need(is_count($chain->{period}, 1) && $chain->{period} <= 0xffffffff, 'period');
    need(is_text($chain->{groupHash}, $HEX) && is_text($chain->{publicKey}, qr/[0-9a-f]{192}/), 'groupHash, publicKey');
    need(is_text($chain->{id}, qr/[\x20-\x7e]+/) && $chain->{id} ne 'default', 'id');
    need(is_text($chain->{scheme}, 'bls-unchained-g1-rfc9380'), 'scheme');
    my $bytes = pack('N', $chain->{period}) . pack('NN', int($chain->{genesis} / 2**32), $chain->{genesis} % 2**32);
    need(sha256_hex($bytes . pack('H*H*', @$chain{qw(publicKey groupHash)}) . $chain->{id}) eq $hash, 'not the chain of the manifest');
    return [@$chain{qw(genesis period)}];
}

sub round_time { my ($chain, $round) = @_; return ($chain->[0] + $chain->[1] * ($round - 1)) * 1000 }

sub check_round {
    my ($manifest, $chain) = @_;
    my $due = round_time($chain, $manifest->{seedSource}{round});
    need($due <= $LAST_SECOND * 1000, 'the round is signed after the year 9999');
    need(!defined $lead || $due - time_of($manifest->{asOf}) >= $lead * 1000, 'the round was signed too soon after asOf');
}

sub check_seed {
    my ($seed, $manifest, $first_hash) = @_;
    keys_are($seed, qw(kind randomness round seed signature));
    my $source = $manifest->{seedSource};
    need(is_text($seed->{kind}, 'drand') && is_count($seed->{round}, 1) && $seed->{round} == $source->{round}, 'kind, round');
    need(is_text($seed->{signature}, qr/[0-9a-f]{96}/) && is_text($seed->{randomness}, $HEX) && is_text($seed->{seed}, $HEX), 'hex');
    need(sha256_hex(pack 'H*', $seed->{signature}) eq $seed->{randomness}, 'randomness is not that of the signature');
    need(sha256_hex("vfseed2|$first_hash|$source->{chain}|$seed->{round}|$seed->{randomness}") eq $seed->{seed}, 'seed does not follow');
}

# 5 Order: the candidates in rank order, as [ref, key, entryKey, leaf]
sub candidates_of {
    my ($leaves, $seed, $manifest) = @_;
    my %key;
    my @rows = map {
        my ($ref, $unit, $weight) = @$_;
        $key{$unit} //= (sort map { sha256_hex("vf2|$seed|$manifest->{drawId}|$unit|$_") } 0 .. $weight - 1)[0];
        [$ref, $key{$unit}, sha256_hex("vf2e|$seed|$ref"), $_]
    } @$leaves;
    my %taken;
    return grep { ++$taken{ $_->[3][1] } <= $manifest->{winsPerUnit} }
        sort { $a->[1] cmp $b->[1] || $a->[3][1] cmp $b->[3][1] || $a->[2] cmp $b->[2] } @rows;
}

# 6 Seats. What a market holds: one list of ranks for each reserve, the open seats last.
sub choose {
    my ($market, $offered, $candidates, @ranks) = @_;
    my @rest = sort { $a <=> $b } @ranks;
    my @groups;
    for my $reserve (@{ $market->{reserves} }) {
        my (@in, @out);
        for my $rank (@rest) {
            my $member = $candidates->[$rank - 1][3][3]{ $reserve->{segment} };
            push @{ $member && @in < $reserve->{seats} ? \@in : \@out }, $rank;
        }
        $offered -= @in;
        push @groups, \@in;
        @rest = @out;
    }
    push @groups, [splice @rest, 0, $offered];
    return (\@groups, @rest);
}

sub allocate {
    my ($manifest, $candidates, $free, $offered) = @_;
    my %held = map { $_->{marketId} => [map { [] } @{ $_->{reserves} }, 0] } @{ $manifest->{markets} };
    my (%asked, @loose);
    @loose = @$free;
    while (@loose) {
        my %apply;
        for my $rank (@loose) {
            my $market = $candidates->[$rank - 1][3][4][$asked{$rank}++];
            push @{ $apply{$market} }, $rank if defined $market;
        }
        @loose = ();
        for my $market (@{ $manifest->{markets} }) {
            my $id = $market->{marketId};
            next unless $apply{$id};
            my @ranks = ((map { @$_ } @{ $held{$id} }), @{ $apply{$id} });
            ($held{$id}, my @rejected) = choose($market, $offered->{$id}, $candidates, @ranks);
            push @loose, @rejected;
        }
    }
    return \%held;
}

sub same {
    my ($path, $bytes) = @_;
    need(content($path) eq $bytes, 'differs from what the rules give');
    return sha256_hex($bytes);
}

sub cutoff {
    my ($group, $seats, $candidates) = @_;
    return undef if @$group < $seats;
    return { entryKey => $ZEROS, key => $ZEROS, rank => 0 } unless $seats;
    my $rank = 0 + $group->[-1];
    return { entryKey => $candidates->[$rank - 1][2], key => $candidates->[$rank - 1][1], rank => $rank };
}

# 11 Beside the artefacts
sub numbered {
    my ($folder, $name, $digits, $type) = (@_, 'json');
    opendir(my $dir, $folder) or refuse("$folder cannot be read");
    my @numbers = sort { $a <=> $b } map { /\A$name-([1-9][0-9]{0,$digits})\.$type\z/ ? $1 : () } readdir $dir;
    $where = $folder;
    need($numbers[$_] == $_ + 1, "$name-$numbers[$_].$type does not follow") for 0 .. $#numbers;
    return @numbers;
}

# The annulment of a phase, undefined if its file is missing or not well formed.
sub annulment {
    my ($phase) = @_;
    my $path = "$phase/annulled.json";
    return undef unless -f $path;
    my ($found) = document($path);
    keys_are($found, qw(annulledAt campaignId manifestHash phase reason));
    need(defined time_of($found->{annulledAt}) && is_text($found->{campaignId}, $ID) && is_count($found->{phase}, 1), 'annulledAt, campaignId, phase');
    need(!defined $found->{manifestHash} || is_text($found->{manifestHash}, $HEX), 'manifestHash');
    need(is_text($found->{reason}, $REASON), 'reason');
    return $found;
}

sub check_annulled {
    my ($found, $manifest, $hash) = @_;
    need($found->{campaignId} eq $manifest->{campaignId} && $found->{phase} == $manifest->{phase}
        && ($found->{manifestHash} // '') eq $hash, 'annulled.json is not about this phase');
}

# The forms of the files that are there.
sub beside_of {
    my ($phase) = @_;
    my %found;
    if (-f "$phase/notice.json") {
        my ($notice) = document("$phase/notice.json");
        keys_are($notice, qw(asOf campaignId capacities committedAt phase publishedAt reason strikes));
        need(defined time_of($notice->{$_}), $_) for qw(asOf committedAt publishedAt);
        need(is_text($notice->{campaignId}, $ID) && is_text($notice->{reason}, $ANY), 'campaignId, reason');
        need(is_count($notice->{phase}, 1) && is_count($notice->{strikes}, 0) && ref $notice->{capacities} eq 'HASH', 'phase, strikes, capacities');
        need(is_count($_, 0), 'capacities') for values %{ $notice->{capacities} };
        $found{notice} = $notice;
    }
    if (-f "$phase/accepted.json") {
        for my $each (@{ parsed(content("$phase/accepted.json"), 'ARRAY') }) {
            keys_are($each, qw(at finding reason));
            need(defined time_of($each->{at}) && is_text($each->{finding}, qr/[a-z][a-z_]{0,63}/) && is_text($each->{reason}, $REASON), 'finding');
        }
    }
    for my $number (numbered($phase, 'replaced', 3)) {
        my ($each) = document("$phase/replaced-$number.json");
        keys_are($each, qw(committedAt manifest publishedAt replacedAt));
        need(defined time_of($each->{committedAt}) && defined time_of($each->{replacedAt}), 'committedAt, replacedAt');
        need(!defined $each->{publishedAt} || defined time_of($each->{publishedAt}), 'publishedAt');
        need(is_text($each->{manifest}, qr/[\x00-\x7f]*/), 'manifest');
        check_manifest($each->{document} = parsed($each->{manifest}, 'HASH'));
        push @{ $found{replaced} }, $each;
    }
    annulment($phase);
    return \%found;
}

sub check_beside {
    my ($phase, $manifest, $hash, $strikes, $chain) = @_;
    my $found = beside_of($phase);
    my $due = round_time($chain, $manifest->{seedSource}{round});
    if (my $notice = $found->{notice}) {
        $where = "$phase/notice.json";
        my %capacities = map { $_->{marketId} => $_->{capacity} } @{ $manifest->{markets} };
        need($notice->{$_} eq $manifest->{$_}, $_) for qw(asOf campaignId);
        need($notice->{phase} == $manifest->{phase}, 'phase');
        need(canonical($notice->{capacities}) eq canonical(\%capacities) && $notice->{strikes} == $strikes, 'capacities, strikes');
        need($manifest->{phase} > 1 || $notice->{reason} eq '', 'a reason in phase 1');
        print "warning: public only at $notice->{publishedAt}, less than $lead s before the round\n"
            if $manifest->{phase} == 1 && defined $lead && $due - time_of($notice->{publishedAt}) < $lead * 1000;
    }
    for my $each (@{ $found->{replaced} || [] }) {
        $where = "$phase/replaced-<k>.json";
        my $before = $each->{document};
        my $round = $before->{seedSource}{round};
        need($manifest->{phase} == 1 && $round != $manifest->{seedSource}{round}, 'not another round of phase 1');
        need(canonical({ %$before, seedSource => $manifest->{seedSource} }) eq canonical($manifest)
            && $before->{seedSource}{chain} eq $manifest->{seedSource}{chain}, 'more than the round differs');
        print "warning: a manifest was replaced when its round $round was signed\n"
            if time_of($each->{replacedAt}) >= round_time($chain, $round);
    }
    my $annulment = annulment($phase);
    check_annulled($annulment, $manifest, $hash) if $annulment;
}

# Planned codes: each has one place, in one phase, and each place one code.
sub check_codes {
    my ($phase, $manifest, $draw) = @_;
    my %known = map { $_->{marketId} => 1 } @{ $manifest->{markets} };
    for my $k (numbered($phase, 'codes', 3, 'txt')) {
        my ($lines) = lines_of("$phase/codes-$k.txt");
        my @order;
        for my $line (@$lines) {
            my ($market, $position, $digest) = $line =~ /\A($ID)\|([1-9][0-9]{0,15})\|($HEX)\z/ or refuse("no planned code: $line");
            need($known{$market}, "market $market is not in the manifest");
            push @order, "$market " . substr('0' x 16 . $position, -16);
            my ($place, $code) = ("$market|$position", "$manifest->{phase}|$digest");
            need(($draw->{codes}{$place} //= $code) eq $code, "the code of $place changed, or was planned in another phase");
            need(($draw->{places}{$digest} //= $place) eq $place, "$place and $draw->{places}{$digest} have the same code");
        }
        in_order(@order);
    }
}

# The record of the campaign: opened.json and its amendments.
sub check_opened {
    my ($folder, $manifest) = @_;
    my @numbers = numbered($folder, 'amended', 5);
    need(-f "$folder/opened.json" || !@numbers, 'opened.json is missing');
    return unless -f "$folder/opened.json";
    my ($last, $hash);
    for my $name ('opened.json', map { "amended-$_.json" } @numbers) {
        my ($each, $own) = document("$folder/$name");
        keys_are($each, qw(campaignId caseless chain closesAt codeKey eligibility eventId issuerKeys markets name opensAt
            registration unitKeyHash waitlistSize winsPerUnit), $last ? qw(previous reason) : ());
        need(is_text($each->{campaignId}, $ID) && (!defined $each->{eventId} || is_text($each->{eventId}, $ID)), 'ids');
        need(JSON::PP::is_bool($each->{$_}), $_) for qw(caseless registration);
        need(is_text($each->{$_}, $HEX), $_) for qw(chain unitKeyHash);
        need(!defined $each->{codeKey} || is_text($each->{codeKey}, qr/[0-9a-f]{192}/), 'codeKey');
        need(defined time_of($each->{opensAt}) && defined time_of($each->{closesAt}) && $each->{opensAt} lt $each->{closesAt}, 'opensAt, closesAt');
        need(ref $each->{eligibility} eq 'HASH' && is_text($each->{name}, $REASON), 'eligibility, name');
        need(!defined $each->{waitlistSize} || is_count($each->{waitlistSize}, 0), 'waitlistSize');
        need(is_count($each->{winsPerUnit}, 1), 'winsPerUnit');
        check_markets($each->{markets});
        for my $key (list_of($each->{issuerKeys}, 'issuerKeys')) {
            keys_are($key, qw(id key));
            need(is_text($key->{id}, $ID) && is_text($key->{key}, $HEX), 'issuerKeys');
        }
        in_order(map { $_->{id} } @{ $each->{issuerKeys} });
        if ($last) {
            need(is_text($each->{previous}, $hash) && is_text($each->{reason}, $REASON), 'previous, reason');
            my @fixed = (qw(campaignId caseless chain eventId unitKeyHash), defined $last->{codeKey} ? 'codeKey' : ());
            need($value_json->encode($each->{$_}) eq $value_json->encode($last->{$_}), "$_ never changes") for @fixed;
            need("@{[map { $_->{marketId} } @{ $each->{markets} }]}" eq "@{[map { $_->{marketId} } @{ $last->{markets} }]}", 'markets');
            need($each->{registration} || !$last->{registration}, 'registration');
        }
        ($last, $hash) = ($each, $own);
    }
    need($last->{campaignId} eq $manifest->{campaignId} && $last->{chain} eq $manifest->{seedSource}{chain}, 'not that of the manifest');
    need("@{[map { $_->{marketId} } @{ $last->{markets} }]}" eq "@{[map { $_->{marketId} } @{ $manifest->{markets} }]}", 'other markets');
    need(!$last->{registration} == !defined $manifest->{registrations}, 'registrations');
}

# 12 Registrations: the entries of the tree, from its bundles tile/entries/000, x001/000 and so on; the last is partial.
sub entries_of {
    my ($folder) = @_;
    my @entries;
    for (my ($number, $full) = (0, 1); $full; $number++) {
        my $path = sprintf '%03d', $number % 1000;
        for (my $rest = int($number / 1000); $rest; $rest = int($rest / 1000)) { $path = sprintf('x%03d/', $rest % 1000) . $path }
        $path = "$folder/tile/entries/$path";
        my $width = 256;
        if (!($full = -f $path)) {
            opendir(my $dir, "$path.p") or last;
            ($width) = sort { $b <=> $a } grep { /\A[1-9][0-9]{0,2}\z/ } readdir $dir;
            $path .= '.p/' . ($width // last);
        }
        my $bytes = content($path);
        my @found = unpack '(n/a*)*', $bytes;
        need(@found == $width && pack('(n/a*)*', @found) eq $bytes, 'not a bundle of its entries');
        push @entries, @found;
    }
    return @entries;
}

sub check_registrations {
    my ($manifest) = @_;
    my $registered = $manifest->{registrations} or refuse('the manifest has no registrations');
    my @entries = entries_of($tree);
    $where = $tree;
    my $size = $registered->{size};
    need(@entries >= $size, scalar(@entries) . " entries, the manifest has $size");
    need(root_of([@entries[0 .. $size - 1]]) eq $registered->{root}, 'not the root of the manifest');
    # By leaf the registration that has it at any time; by registration whether it was withdrawn or erased.
    my (%owner, %ended);
    my %count = (erased => 0, notices => 0, unit => 0, withdrawn => 0);
    for my $index (0 .. $#entries) {
        my ($about, $kind, $leaf) = ($index, '', $entries[$index]);
        if ($leaf !~ /\A$HEX\z/) {
            ($about, $kind, $leaf) = $leaf =~ /\Avfnote1\|(0|[1-9][0-9]{0,15})\|(?:(withdrawn|erased)\|-|unit\|($HEX))\z/
                ? ($1, $2 // 'unit', $3) : refuse("entry $index is neither a leaf nor a notice");
            need(exists $ended{$about} && !$ended{$about}, "entry $index is about no registration, or about one that ended");
            $ended{$about} = 1 if $kind ne 'unit';
            if ($index < $size) { $count{notices}++; $count{$kind}++ }
        } else {
            need(!defined $owner{$leaf}, "entry $index has the leaf of another one");
            $ended{$index} = 0;
        }
        need(($owner{$leaf} //= $about) == $about, "entry $index has the leaf of another one") if defined $leaf;
    }
    need($count{$_} == $registered->{$_}, "$count{$_} $_, the manifest has $registered->{$_}") for qw(erased notices withdrawn);
    print "registrations hold: $size entries with the root of the manifest, $count{notices} of them notices\n";
}

# 10 Further phases: what may change, and what may not.
sub check_change {
    my ($manifest, $last, $before, $used) = @_;
    need(canonical($manifest->{previous}) eq canonical($before), 'previous is not the phase before');
    need(@{ $manifest->{markets} } == @{ $last->{markets} }, 'other markets');
    my @markets;
    for my $place (0 .. $#{ $last->{markets} }) {
        my ($then, $now) = ($last->{markets}[$place], $manifest->{markets}[$place]);
        need($now->{capacity} >= $then->{capacity}, 'a lower capacity');
        push @markets, { %$now, marketId => $then->{marketId}, laterReserves => $then->{laterReserves} };
    }
    my %allowed = map { $_ => $manifest->{$_} } qw(phase previous strikesHash strikesRoot);
    need(canonical({ %$last, %allowed, markets => \@markets }) eq canonical($manifest), 'more changed than may');
    check_declared($manifest, $used);
}

sub strikes_of {
    my ($phase, $manifest, $leaves, $before, $won) = @_;
    my ($lines, $hash) = lines_of("$phase/strikes.txt");
    need($hash eq $manifest->{strikesHash}, 'not the strikesHash of the manifest');
    need(root_of($lines) eq $manifest->{strikesRoot}, 'not the strikesRoot of the manifest');
    /\A$ID\|[A-Z_]+\z/ or refuse("no strike: $_") for @$lines;
    my %strikes = map { split /\|/ } @$lines;
    in_order(map { (split /\|/)[0] } @$lines);
    need(defined $strikes{$_} && $strikes{$_} eq $before->{$_}, "the strike of $_ is gone") for keys %$before;
    my %refs = map { $_->[0] => 1 } @$leaves;
    for my $ref (keys %strikes) {
        need($refs{$ref}, "$ref is no leaf");
        need($strikes{$ref} ne 'UNCLAIMED' || $before->{$ref} || $won->{$ref}, "$ref is UNCLAIMED and had not won");
    }
    return \%strikes;
}

# One phase; $draw is what the phases share. One that is pending has no result yet, and perhaps no leaves and seed.
sub check_phase {
    my ($phase, $number, $draw, $pending) = @_;
    my ($manifest, $hash) = document("$phase/manifest.json");
    check_manifest($manifest);
    need($manifest->{phase} == $number, 'not the phase of the folder');
    my $published = $draw->{published}[$number - 1] // $hash;
    need($published eq $hash, "manifestHash is $hash, published was $published");
    if ($number == 1) {
        $draw->{first} = $manifest;
        $draw->{hash} = $hash;
        $draw->{chain} = chain_of($draw->{folder}, $manifest->{seedSource}{chain});
        if ($manifest->{seedSource}{chain} eq $QUICKNET) { $lead = 600 unless defined $lead && $lead > 600 }
        $where = "$phase/manifest.json";
        check_round($manifest, $draw->{chain});
        check_opened($draw->{folder}, $manifest);
        ($draw->{leaves}, my $lines) = leaves_of("$phase/leaves.txt");
        need(root_of($lines) eq $manifest->{root} && @$lines == $manifest->{count}, 'not the root or the number of the manifest');
        check_registrations($manifest) if defined $tree;
    } else {
        check_change($manifest, @$draw{qw(last before used)});
        for (qw(leaves.txt seed.json)) {
            same("$phase/$_", content("$draw->{folder}/phase-1/$_")) unless $pending && !-f "$phase/$_";
        }
    }
    my $won = $draw->{won};
    my $leaves = $draw->{leaves};
    my $strikes = strikes_of($phase, $manifest, $leaves, $draw->{strikes}, $won);
    check_beside($phase, $manifest, $hash, scalar keys %$strikes, $draw->{chain});
    check_codes($phase, $manifest, $draw);
    my ($seed) = document("$draw->{folder}/phase-1/seed.json");
    check_seed($seed, $manifest, $draw->{hash});
    my $candidates = $draw->{candidates} ||= [candidates_of($leaves, $seed->{seed}, $draw->{first})];
    $where = "$phase/leaves.txt";
    my %known = map { $_->{marketId} => 1 } @{ $manifest->{markets} };
    for my $leaf (@$leaves) { need($known{$_}, "market $_ is not in the manifest") for @{ $leaf->[4] } }

    $where = "$phase/manifest.json";
    delete $won->{$_} for keys %$strikes;
    my (%offered, %pinned);
    $pinned{$_}++ for values %$won;
    for my $market (@{ $manifest->{markets} }) {
        my $id = $market->{marketId};
        $offered{$id} = $market->{capacity} - ($pinned{$id} || 0);
        my $kept = 0;
        $kept += $_->{seats} for @{ $market->{reserves} };
        need($offered{$id} >= 0 && $kept <= $offered{$id}, "seats of $id");
    }
    my @free = grep { my $ref = $candidates->[$_ - 1][0]; !$won->{$ref} && !$strikes->{$ref} } 1 .. @$candidates;
    if ($pending) { print "phase $number has no result yet: what it is drawn from was checked\n"; return }
    my $held = allocate($manifest, $candidates, \@free, \%offered);

    # 8 Cut-offs
    my (%cutoffs, %markets);
    for my $market (@{ $manifest->{markets} }) {
        my $id = $market->{marketId};
        my @groups = @{ $held->{$id} };
        my $open = pop @groups;
        my ($left, @reserves) = ($offered{$id});
        for my $place (0 .. $#groups) {
            my $reserve = $market->{reserves}[$place];
            push @reserves, { cutoff => cutoff($groups[$place], $reserve->{seats}, $candidates), segment => $reserve->{segment} };
            $left -= @{ $groups[$place] };
        }
        $cutoffs{$id} = { open => cutoff($open, $left, $candidates), reserves => \@reserves };
        my @new = map { @$_ } @groups, $open;
        $won->{ $candidates->[$_ - 1][0] } = $id for @new;
        $markets{$id} = { new => scalar @new, winners => @new + ($pinned{$id} || 0) };
    }

    # 7 Outcomes, 9 Result and summary
    my (%rank, %outcome, $waiting);
    $waiting = 0;
    for my $rank (1 .. @$candidates) {
        my $ref = $candidates->[$rank - 1][0];
        $rank{$ref} = $rank;
        next if $strikes->{$ref} || $won->{$ref};
        $waiting++;
        $outcome{$ref} = !defined $manifest->{waitlistSize} || $waiting <= $manifest->{waitlistSize} ? 'WAITLIST' : 'UNSELECTED';
    }
    my %counts = map { $_ => 0 } @OUTCOMES;
    my @result;
    for my $leaf (@$leaves) {
        my $ref = $leaf->[0];
        my $struck = $strikes->{$ref} && ($strikes->{$ref} eq 'UNCLAIMED' ? 'UNCLAIMED' : 'STRUCK');
        my $outcome = $struck || ($rank{$ref} ? $outcome{$ref} || 'WINNER' : 'HOUSEHOLD_LIMIT');
        $counts{$outcome}++;
        push @result, join('|', $ref, $outcome eq 'WINNER' ? $won->{$ref} : '', $rank{$ref} || '', $outcome);
    }
    my $result_hash = same("$phase/result.txt", join '', map { "$_\n" } @result);
    my $cutoffs_hash = same("$phase/cutoffs.json", canonical({ markets => \%cutoffs }));
    same("$phase/summary.json", canonical({
        cutoffsHash => $cutoffs_hash, manifestHash => $hash, markets => \%markets, outcomes => \%counts,
        resultHash => $result_hash, resultRoot => root_of(\@result),
    }));
    print "phase $number holds: manifestHash $hash, resultHash $result_hash\n";
    @$draw{qw(before strikes last)} = ({ manifestHash => $hash, resultHash => $result_hash }, $strikes, $manifest);
}

# A phase without a result, which was annulled before or is not committed to yet.
sub check_alone {
    my ($phase, $number) = @_;
    print "phase $number has no result yet, so it was not verified\n";
    beside_of($phase);
    my $annulment = annulment($phase) or return;
    if (-f "$phase/manifest.json") {
        my ($manifest, $hash) = document("$phase/manifest.json");
        check_manifest($manifest);
        check_annulled($annulment, $manifest, $hash);
    }
    need($annulment->{phase} == $number, 'annulled.json is not about this phase');
}

while (@ARGV > 1 && $ARGV[0] =~ /\A--(lead|registrations)\z/) { shift @ARGV; ($1 eq 'lead' ? $lead : $tree) = shift @ARGV }
my ($folder, @published) = @ARGV;
defined $folder && (!defined $lead || $lead =~ /\A[1-9][0-9]{0,9}\z/)
    or die "usage: verify_draw.pl [--lead SECONDS] [--registrations TREE] FOLDER [MANIFEST_HASH ...]\n";
opendir(my $dir, $folder) or die "$folder: cannot be read\n";
my @numbers = sort { $a <=> $b } map { /\Aphase-([1-9][0-9]*)\z/ && -d "$folder/$_" ? $1 : () } readdir $dir;
# The annulment comes first, also that of a draw that does not hold.
my ($annulled) = grep { defined } map { scalar eval { annulment("$folder/phase-$_") } } @numbers;
print "ANNULLED by the operator at $annulled->{annulledAt}: its outcomes do not count\n" if $annulled;
my $holds = eval {
    my %draw = (folder => $folder, published => \@published, won => {}, strikes => {}, used => {});
    $where = $folder;
    need(@numbers && $numbers[-1] == @numbers, 'should hold phase-1, phase-2, ... without a gap');
    need(@published <= @numbers, 'fewer phases than hashes');
    for my $number (@numbers) {
        my $phase = "$folder/phase-$number";
        $where = "$folder/phase-" . ($number + 1);
        my $ends = eval { annulment($phase) };
        need(!$ends || $number == @numbers, 'follows an annulled phase');
        my $drawn = grep { -e "$phase/$_" } @OUTPUTS;
        my $pending = !$drawn && $number == @numbers && ($number > 1 || $ends);
        if ($pending && ($ends || !-f "$phase/manifest.json")) { check_alone($phase, $number) }
        else { check_phase($phase, $number, \%draw, $pending) }
    }
    1;
};
print $@ unless $holds;
print "not checked: the signature and the key of the beacon\n";
print 'verdict: ', $annulled ? 'annulled' : !$holds ? 'fails' : defined $lead ? 'holds' : 'incomplete: lead unknown', "\n";
exit($holds && ($annulled || defined $lead) ? 0 : 1);
