#!/usr/bin/env perl
# A verifier of draws, written from docs/draw-rules.md alone; its numbers are the numbers of the sections there.
# Needs only Perl 5.14:  perl verify_draw.pl FOLDER [MANIFEST_HASH ...]
# FOLDER holds phase-1, phase-2, ...; pass one hash per phase, as it was published before the draw. Exits with 1 if
# anything does not hold. Not checked: the beacon's signature (that needs BLS: compare with the beacon), notice.json.
use strict;
use warnings;
use Digest::SHA qw(sha256 sha256_hex);
use JSON::PP;
use Time::Local qw(timegm);

my $CHAIN = '52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971';
my ($GENESIS, $PERIOD, $LEAD) = (1692803367, 3, 600);
my $ID = qr/[A-Za-z0-9_-]{1,64}/;
my $MARKET = qr/(?!-\z)$ID/;
my $HEX = qr/[0-9a-f]{64}/;
my $ZEROS = '0' x 64;
my @OUTCOMES = qw(WINNER WAITLIST UNSELECTED HOUSEHOLD_LIMIT STRUCK);
my $json = JSON::PP->new->canonical->utf8;
my $value_json = JSON::PP->new->allow_nonref;
my $where = '';

sub refuse { print "$where: @_\n"; exit 1 }
sub need { my ($holds, @why) = @_; refuse(@why) unless $holds }
# A number in JSON and a text, which Perl itself does not distinguish.
sub is_count {
    my ($value, $least) = @_;
    return defined $value && !ref $value && $value_json->encode($value) =~ /\A(?:0|[1-9][0-9]{0,15})\z/ && $value >= $least;
}

sub is_text {
    my ($value, $form) = @_;
    return defined $value && !ref $value && $value_json->encode($value) =~ /\A"/ && $value =~ /\A$form\z/;
}

sub keys_are {
    my ($hash, @keys) = @_;
    need(ref $hash eq 'HASH' && "@{[sort keys %$hash]}" eq "@{[sort @keys]}", "keys should be @keys");
}

sub content {
    my ($path) = @_;
    $where = $path;
    open(my $file, '<:raw', $path) or refuse('cannot be read');
    local $/;
    my $bytes = <$file>;
    return defined $bytes ? $bytes : '';
}

sub document {
    my ($path) = @_;
    my $bytes = content($path);
    my $document = eval { $json->decode($bytes) };
    need(ref $document eq 'HASH' && $json->encode($document) eq $bytes, 'not canonical JSON');
    return ($document, sha256_hex($bytes));
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

# 2 Root
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
sub check_manifest {
    my ($manifest, $number) = @_;
    keys_are($manifest, qw(algorithm asOf campaignId count drawId markets phase previous root seedSource strikesHash waitlistSize winsPerUnit));
    need($manifest->{algorithm} eq 'vf1', 'algorithm');
    need(is_text($manifest->{campaignId}, $ID) && $manifest->{drawId} eq $manifest->{campaignId}, 'ids');
    need(is_text($manifest->{$_}, $HEX), $_) for qw(root strikesHash);
    need(is_count($manifest->{count}, 0) && is_count($manifest->{winsPerUnit}, 1), 'count, winsPerUnit');
    need(!defined $manifest->{waitlistSize} || is_count($manifest->{waitlistSize}, 0), 'waitlistSize');
    need(is_count($manifest->{phase}, 1) && $manifest->{phase} == $number, "phase should be $number");
    need(ref $manifest->{markets} eq 'ARRAY', 'markets');
    for my $market (@{ $manifest->{markets} }) {
        keys_are($market, qw(capacity marketId reserves));
        need(is_text($market->{marketId}, $MARKET) && is_count($market->{capacity}, 0), 'market');
        my %once;
        for my $reserve (@{ $market->{reserves} }) {
            keys_are($reserve, qw(seats segment));
            need(is_text($reserve->{segment}, $ID) && is_count($reserve->{seats}, 0) && !$once{ $reserve->{segment} }++, 'reserve');
        }
    }
    in_order(map { $_->{marketId} } @{ $manifest->{markets} });
    my $source = $manifest->{seedSource};
    need(ref $source eq 'HASH' && defined $source->{kind}, 'seedSource');
    if ($source->{kind} eq 'drand') {
        keys_are($source, qw(chain kind round));
        need($source->{chain} eq $CHAIN && is_count($source->{round}, 1), 'chain, round');
        my ($y, $m, $d, $h, $min, $s, $ms) = is_text($manifest->{asOf}, qr/.{24}/)
            && $manifest->{asOf} =~ /\A(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z\z/ or refuse('asOf');
        my $as_of = timegm($s, $min, $h, $d, $m - 1, $y) + $ms / 1000;
        need($GENESIS + $PERIOD * ($source->{round} - 1) >= $as_of + $LEAD, 'the round was signed too soon after asOf');
    } else {
        keys_are($source, qw(commitment kind));
        need($source->{kind} eq 'commit-reveal' && is_text($source->{commitment}, $HEX), 'commitment');
    }
}

# 4 Seed
sub check_seed {
    my ($seed, $manifest, $first_hash) = @_;
    keys_are($seed, qw(kind randomness round seed signature));
    my $source = $manifest->{seedSource};
    need($seed->{kind} eq $source->{kind} && is_text($seed->{randomness}, $HEX) && is_count($seed->{round}, 0), 'kind, randomness, round');
    my $name = 'commit-reveal';
    if ($seed->{kind} eq 'drand') {
        need($seed->{round} == $source->{round} && is_text($seed->{signature}, qr/[0-9a-f]{96}/), 'round, signature');
        need(sha256_hex(pack 'H*', $seed->{signature}) eq $seed->{randomness}, 'randomness is not that of the signature');
        $name = $source->{chain};
    } else {
        need($seed->{round} == 0 && !defined $seed->{signature}, 'round, signature');
        need(sha256_hex(pack 'H*', $seed->{randomness}) eq $source->{commitment}, 'not what was committed to');
    }
    need(sha256_hex("vfseed1|$first_hash|$name|$seed->{round}|$seed->{randomness}") eq $seed->{seed}, 'seed does not follow');
}

# 5 Order: the candidates in rank order, as [ref, key, entryKey, leaf]
sub candidates_of {
    my ($leaves, $seed, $manifest) = @_;
    my %key;
    my @rows = map {
        my ($ref, $unit, $weight) = @$_;
        $key{$unit} //= (sort map { sha256_hex("vf1|$seed|$manifest->{drawId}|$unit|$_") } 0 .. $weight - 1)[0];
        [$ref, $key{$unit}, sha256_hex("vf1e|$seed|$ref"), $_]
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

my ($folder, @published) = @ARGV;
defined $folder or die "usage: verify_draw.pl FOLDER [MANIFEST_HASH ...]\n";
my ($first, $first_hash, $leaves, $candidates, $before, %before_strikes, %won);
for (my $number = 1; -d "$folder/phase-$number"; $number++) {
    my $phase = "$folder/phase-$number";
    my ($manifest, $hash) = document("$phase/manifest.json");
    check_manifest($manifest, $number);
    need($published[$number - 1] eq $hash, "manifestHash is $hash, published was $published[$number - 1]") if @published >= $number;
    if ($number == 1) {
        ($first, $first_hash) = ($manifest, $hash);
        need(!defined $manifest->{previous}, 'previous');
        ($leaves, my $lines) = leaves_of("$phase/leaves.txt");
        need(root_of($lines) eq $manifest->{root} && @$lines == $manifest->{count}, 'not the root or the number of the manifest');
    } else {
        # 10 Further phases
        keys_are($manifest->{previous}, qw(manifestHash resultHash));
        need($json->encode($manifest->{previous}) eq $json->encode($before), 'previous is not the phase before');
        my %allowed = map { $_ => $manifest->{$_} } qw(phase previous strikesHash waitlistSize);
        my @markets = map { { %{ $manifest->{markets}[$_] }, marketId => $first->{markets}[$_]{marketId} } } 0 .. $#{ $first->{markets} };
        need($json->encode({ %$first, %allowed, markets => \@markets }) eq $json->encode($manifest), 'more changed than may');
        same("$phase/$_", content("$folder/phase-1/$_")) for qw(leaves.txt seed.json);
    }
    my ($strike_lines, $strikes_hash) = lines_of("$phase/strikes.txt");
    need($strikes_hash eq $manifest->{strikesHash}, 'not the strikesHash of the manifest');
    /\A$ID\|[A-Z_]+\z/ or refuse("no strike: $_") for @$strike_lines;
    my %strikes = map { split /\|/ } @$strike_lines;
    in_order(map { (split /\|/)[0] } @$strike_lines);
    need(defined $strikes{$_} && $strikes{$_} eq $before_strikes{$_}, "the strike of $_ is gone") for keys %before_strikes;
    my %refs = map { $_->[0] => 1 } @$leaves;
    need($refs{$_}, "$_ is no leaf") for keys %strikes;

    my ($seed) = document("$phase/seed.json");
    check_seed($seed, $manifest, $first_hash);
    $candidates ||= [candidates_of($leaves, $seed->{seed}, $first)];
    $where = "$phase/leaves.txt";
    my %known = map { $_->{marketId} => 1 } @{ $manifest->{markets} };
    for my $leaf (@$leaves) { need($known{$_}, "market $_ is not in the manifest") for @{ $leaf->[4] } }

    $where = "$phase/manifest.json";
    delete $won{$_} for keys %strikes;
    my (%offered, %pinned);
    $pinned{$_}++ for values %won;
    for my $market (@{ $manifest->{markets} }) {
        my $id = $market->{marketId};
        $offered{$id} = $market->{capacity} - ($pinned{$id} || 0);
        my $kept = 0;
        $kept += $_->{seats} for @{ $market->{reserves} };
        need($offered{$id} >= 0 && $kept <= $offered{$id}, "seats of $id");
    }
    my @free = grep { my $ref = $candidates->[$_ - 1][0]; !$won{$ref} && !$strikes{$ref} } 1 .. @$candidates;
    my $held = allocate($manifest, $candidates, \@free, \%offered);

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
        $won{ $candidates->[$_ - 1][0] } = $id for @new;
        $markets{$id} = { new => scalar @new, winners => @new + ($pinned{$id} || 0) };
    }

    # 7 Outcomes, 9 Result and summary
    my (%rank, %outcome, $waiting);
    $waiting = 0;
    for my $rank (1 .. @$candidates) {
        my $ref = $candidates->[$rank - 1][0];
        $rank{$ref} = $rank;
        next if $strikes{$ref} || $won{$ref};
        $waiting++;
        $outcome{$ref} = !defined $manifest->{waitlistSize} || $waiting <= $manifest->{waitlistSize} ? 'WAITLIST' : 'UNSELECTED';
    }
    my %counts = map { $_ => 0 } @OUTCOMES;
    my $result = '';
    for my $leaf (@$leaves) {
        my $ref = $leaf->[0];
        my $outcome = $strikes{$ref} ? 'STRUCK' : $rank{$ref} ? $outcome{$ref} || 'WINNER' : 'HOUSEHOLD_LIMIT';
        $counts{$outcome}++;
        $result .= join('|', $ref, $outcome eq 'WINNER' ? $won{$ref} : '', $rank{$ref} || '', $outcome) . "\n";
    }
    my $result_hash = same("$phase/result.txt", $result);
    my $cutoffs_hash = same("$phase/cutoffs.json", $json->encode({ markets => \%cutoffs }));
    same("$phase/summary.json", $json->encode({
        cutoffsHash => $cutoffs_hash, manifestHash => $hash, markets => \%markets, outcomes => \%counts, resultHash => $result_hash,
    }));
    print "phase $number holds: manifestHash $hash, resultHash $result_hash\n";
    $before = { manifestHash => $hash, resultHash => $result_hash };
    %before_strikes = %strikes;
}
$where = $folder;
need(defined $first, 'holds no phase-1');
