package rollout

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
)

func durationBound(i int) time.Duration { return routetable.DurationBounds[i] }

func TestStepsOneAfterTheOther(t *testing.T) {
	m := newSim(t, 8, settings("1", "25%", "50%", "100%"))
	var sizes []int
	for !m.Over() {
		m.tick()
		if n := len(m.onNewVersion()); len(sizes) == 0 || sizes[len(sizes)-1] != n {
			sizes = append(sizes, n)
		}
		if d := m.Describe(); d.GetOnOld().GetDataPlanes() != 8-uint32(len(d.GetChosen())) {
			t.Errorf("%d are chosen, and %d are said to run what was before", len(d.GetChosen()), d.GetOnOld().GetDataPlanes())
		}
	}
	if diff := cmp.Diff(sizes, []int{0, 1, 2, 4, 8}); diff != "" {
		t.Errorf("data planes with the change (-got +want):\n%s", diff)
	}
	if m.Phase != Done || !m.Everybody() {
		t.Errorf("it is %s: %s", m.Phase, m.events())
	}
	// Four bakes, and a few seconds for each step.
	if took := m.now.Sub(m.StartedAt); took < 40*time.Second || took > 60*time.Second {
		t.Errorf("it took %s", took)
	}
	if m.asked < 8 {
		t.Errorf("reports were wanted %d times", m.asked)
	}
}

func TestASmallFleetHasFewerSteps(t *testing.T) {
	for _, test := range []struct {
		planes, bakes int
	}{{1, 1}, {2, 2}, {3, 2}} {
		t.Run(fmt.Sprint(test.planes), func(t *testing.T) {
			m := newSim(t, test.planes, settings("1", "25%", "100%"))
			m.until(Done)
			if n := strings.Count(m.events(), "watched for"); n != test.bakes {
				t.Errorf("%d bakes, want %d:\n%s", n, test.bakes, m.events())
			}
			if n := len(m.onNewVersion()); n != test.planes {
				t.Errorf("%d data planes have it", n)
			}
		})
	}
}

func TestCanaries(t *testing.T) {
	yes, no := map[string]string{"canary": "yes", "zone": "a"}, map[string]string{"canary": "no"}
	for _, test := range []struct {
		name   string
		labels []map[string]string
		steps  []string
		canary map[string]string
		want   int    // canaries in the first step
		event  string // that is told
	}{
		{"one of them", []map[string]string{no, yes, no, yes}, []string{"1", "100%"}, map[string]string{"canary": "yes"}, 1, ""},
		{"all of them", []map[string]string{no, yes, no, yes}, []string{"3", "100%"}, map[string]string{"canary": "yes"}, 2, ""},
		{"two labels", []map[string]string{{"canary": "yes"}, no, yes}, []string{"50%", "100%"}, yes, 1, ""},
		{
			"nobody", []map[string]string{no, no, nil}, []string{"1", "100%"}, map[string]string{"canary": "yes"}, 0,
			"no connected data plane has the labels of canary (canary=yes); any can be chosen",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings(test.steps...)
			s.Canary = test.canary
			m := newSim(t, 0, s)
			for i, labels := range test.labels {
				m.join(fmt.Sprint(i), labels)
			}
			m.until(Baking)
			got := 0
			for _, id := range m.onNewVersion() {
				if m.canaryLabels(id) {
					got++
				}
			}
			if got != test.want || len(m.onNewVersion()) != max(1, test.want) {
				t.Errorf("%v have it, want %d canaries", m.onNewVersion(), test.want)
			}
			if !strings.Contains(m.events(), test.event) {
				t.Errorf("events:\n%s\nwant %s", m.events(), test.event)
			}
			m.until(Done)
		})
	}
}

func (m *sim) canaryLabels(id string) bool { return m.Rollout.canary(m.planes[id].DataPlane) }

func TestTheSameCanaryEachTime(t *testing.T) {
	first := newSim(t, 9, settings("1", "100%")).canary().ID
	for range 3 {
		if got := newSim(t, 9, settings("1", "100%")).canary().ID; got != first {
			t.Errorf("%s, before it was %s", got, first)
		}
	}
}

// TestAborts shows what takes a change back, and when.
func TestAborts(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*config.Rollout)
		happen func(m *sim, canary *plane)
		want   string // the reason has it; empty: the roll-out is done
	}{
		{"nothing", nil, func(*sim, *plane) {}, ""},
		{"rejected", nil, func(_ *sim, c *plane) { c.Version, c.rejects = oldVersion, true }, "1 data plane rejected it: ID: port 80: taken"},
		{
			"rejected, any number may",
			func(s *config.Rollout) { s.AbortOn.Rejected = 0 }, func(_ *sim, c *plane) { c.Version, c.rejects = oldVersion, true }, "",
		},
		{
			"rejected by fewer",
			func(s *config.Rollout) { s.AbortOn.Rejected = 2 }, func(_ *sim, c *plane) { c.Version, c.rejects = oldVersion, true }, "",
		},
		{"vanished", nil, func(_ *sim, c *plane) { c.away = true }, "1 data plane that has it vanished or did not answer: ID"},
		{"vanished, any number may", func(s *config.Rollout) { s.AbortOn.Disconnected = 0 }, func(_ *sim, c *plane) { c.away = true }, ""},
		{"late", nil, func(_ *sim, c *plane) { c.late = true }, "1 data plane that has it vanished or did not answer: ID"},
		{"away for a moment", nil, func(m *sim, c *plane) {
			c.away = true
			m.tick()
			m.tick()
			c.away = false
		}, ""},
		{"another vanished", nil, func(m *sim, c *plane) {
			for _, p := range m.planes {
				p.away = p != c && p.ID != "dp0" && p.ID != "dp1"
			}
		}, ""},
		{"errors", nil, func(_ *sim, c *plane) { c.errors = 2 }, "server errors: 4.00% of "},
		{"errors within the limit", nil, func(_ *sim, c *plane) { c.errors = 1 }, ""},
		{"errors everywhere", nil, func(m *sim, _ *plane) {
			for _, p := range m.planes {
				p.errors, p.oldErrors = p.rate/2, p.rate/2
			}
		}, ""},
		{
			"errors, and no limit",
			func(s *config.Rollout) { s.AbortOn.ErrorRate = 100 }, func(_ *sim, c *plane) { c.errors = 50 }, "",
		},
		{"slow", nil, func(_ *sim, c *plane) { c.took = 40 * time.Millisecond }, "99% of "},
		{"slower within the limit", nil, func(_ *sim, c *plane) { c.took = 7 * time.Millisecond }, ""},
		{"too few requests", nil, func(_ *sim, c *plane) { c.rate = 1 }, ""},
		{"too few requests, and errors", nil, func(_ *sim, c *plane) { c.rate, c.errors = 1, 1 }, ""},
		{
			"too few requests, abort",
			func(s *config.Rollout) { s.OnNoTraffic = config.Abort }, func(_ *sim, c *plane) { c.rate = 1 },
			"too few requests to judge step 1: ",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings("1", "100%")
			if test.change != nil {
				test.change(&s)
			}
			m := newSim(t, 4, s)
			m.planes["dp0"].rate = 200
			canary := m.canary()
			test.happen(m, canary)
			m.run("it is over", m.Over)
			if test.want == "" {
				if m.Phase != Done {
					t.Fatalf("it is %s:\n%s", m.Phase, m.events())
				}
				return
			}
			if want := strings.ReplaceAll(test.want, "ID", canary.ID); m.Phase != Aborted || !strings.Contains(m.Reason, want) {
				t.Fatalf("it is %s: %s\nwant %s\n%s", m.Phase, m.Reason, want, m.events())
			}
			m.tick()
			if left := m.onNewVersion(); len(left) > 1 || len(left) == 1 && !canary.away {
				t.Errorf("%v still have it", left)
			}
			if !strings.HasPrefix(m.Outcome(), "aborted in step 1 of 2: ") {
				t.Errorf("outcome %q", m.Outcome())
			}
		})
	}
}

func TestErrorsAbortBeforeTheBakeIsOver(t *testing.T) {
	s := settings("1", "100%")
	s.Bake = time.Hour
	m := newSim(t, 4, s)
	m.canary().errors = 50
	begin := m.now
	m.until(Aborted)
	if took := m.now.Sub(begin); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// The others have it too, so it is compared with what they did before.
func TestTheLastStepIsComparedWithTheStepBefore(t *testing.T) {
	m := newSim(t, 2, settings("1", "100%"))
	m.until(Baking)
	m.run("the last step", func() bool { return m.Step == 1 && m.Phase == Baking })
	for _, p := range m.planes {
		p.errors = 10
	}
	m.until(Aborted)
	if !strings.Contains(m.Reason, "server errors") {
		t.Errorf("reason %s", m.Reason)
	}
	if m.tick(); len(m.onNewVersion()) > 0 {
		t.Errorf("%v still have it", m.onNewVersion())
	}
}

// A fleet of one has nobody to be compared with but itself.
func TestAFleetOfOneIsComparedWithItsPast(t *testing.T) {
	m := newSim(t, 1, settings("1", "100%"))
	p := m.planes["dp0"]
	for range 10 {
		p.serve(m.now)
	}
	p.errors = 10
	m.until(Aborted)
	if !strings.Contains(m.Reason, "server errors: 20.00%") || !strings.Contains(m.Reason, "0.00%") {
		t.Errorf("reason %s", m.Reason)
	}
}

func TestPauseResumePromoteAbort(t *testing.T) {
	m := newSim(t, 8, settings("1", "25%", "100%"))
	m.until(Baking)
	if err := m.Resume(m.now, ""); err == nil {
		t.Error("resumed although it is not paused")
	}
	if err := m.Pause(m.now, " by ann: lunch"); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		m.tick()
	}
	if m.Phase != Paused || len(m.onNewVersion()) != 1 || m.Reason != "by ann: lunch" {
		t.Fatalf("%s, %v, %s", m.Phase, m.onNewVersion(), m.Reason)
	}
	if err := m.Pause(m.now, ""); err == nil {
		t.Error("paused twice")
	}
	if err := m.Resume(m.now, " by ann"); err != nil {
		t.Fatal(err)
	}
	m.run("the next step", func() bool { return m.Step == 1 && m.Phase == Baking })
	if err := m.Promote(m.now, " by ann"); err != nil {
		t.Fatal(err)
	}
	m.run("everybody has it", func() bool { return len(m.onNewVersion()) == 8 })
	if m.Phase == Done {
		t.Error("the last step is not watched")
	}
	if err := m.Promote(m.now, ""); err == nil {
		t.Error("promoted twice")
	}
	if err := m.Abort(m.now, "ann: no"); err != nil {
		t.Fatal(err)
	}
	if m.tick(); len(m.onNewVersion()) > 0 {
		t.Errorf("%v still have it", m.onNewVersion())
	}
	for name, err := range map[string]error{
		"pause": m.Pause(m.now, ""), "resume": m.Resume(m.now, ""), "promote": m.Promote(m.now, ""), "abort": m.Abort(m.now, ""),
	} {
		if err == nil {
			t.Errorf("%s after the end", name)
		}
	}
}

func TestAPausedRollOutIsAborted(t *testing.T) {
	m := newSim(t, 4, settings("1", "100%"))
	canary := m.canary()
	if err := m.Pause(m.now, ""); err != nil {
		t.Fatal(err)
	}
	canary.away = true
	m.until(Aborted)
}

func TestTooFewRequestsPause(t *testing.T) {
	s := settings("1", "100%")
	s.OnNoTraffic = config.Pause
	m := newSim(t, 4, s)
	for _, p := range m.planes {
		p.rate = 1
	}
	m.until(Paused)
	if !strings.HasPrefix(m.Reason, "too few requests to judge step 1: ") {
		t.Errorf("reason %s", m.Reason)
	}
	m.restart()
	m.tick()
	if err := m.Resume(m.now, ""); err != nil {
		t.Fatal(err)
	}
	if m.Step != 1 {
		t.Errorf("step %d, want the next one, 1", m.Step)
	}
}

func TestWhoComesInTheMiddle(t *testing.T) {
	m := newSim(t, 4, settings("1", "50%", "100%"))
	m.until(Baking)
	m.join("late", nil)
	already := m.join("already", nil)
	already.Version = newVersion
	m.tick()
	if m.planes["late"].Version != oldVersion {
		t.Error("it got the change before its step")
	}
	if already.Version != newVersion || !m.Chosen["already"] {
		t.Error("the change was taken from who had it")
	}
	m.run("the last step", func() bool { return m.Step == 2 && m.Phase == Baking })
	m.join("last", nil)
	m.tick()
	if m.planes["last"].Version != newVersion {
		t.Error("it did not get what everybody gets")
	}
	m.until(Done)
}

func TestACanaryThatLeavesIsReplaced(t *testing.T) {
	m := newSim(t, 4, settings("1", "100%"))
	s := m.canary()
	s.gone = true
	m.run("another one has it", func() bool {
		return slices.ContainsFunc(m.onNewVersion(), func(id string) bool { return id != s.ID })
	})
	if m.Step != 0 || m.Chosen[s.ID] {
		t.Errorf("step %d, chosen %v", m.Step, m.Chosen)
	}
	m.until(Done)
}

// Between two looks a data plane that was away can come back and say goodbye.
func TestACanaryThatIsAwayAndLeavesIsReplaced(t *testing.T) {
	m := newSim(t, 4, settings("1", "100%"))
	s := m.canary()
	s.away = true
	m.tick()
	s.away, s.gone = false, true
	m.until(Done)
}

func TestNobodyIsConnected(t *testing.T) {
	m := newSim(t, 0, settings("1", "100%"))
	for range 100 {
		m.tick()
	}
	if m.Phase != Applying || m.Describe().GetReason() != "no data plane is connected" {
		t.Fatalf("%s: %s", m.Phase, m.Describe().GetReason())
	}
	m.join("dp0", nil)
	m.until(Done)
}

func TestARestartContinues(t *testing.T) {
	m := newSim(t, 8, settings("1", "50%", "100%"))
	m.run("the second step", func() bool { return m.Step == 1 && m.Phase == Baking })
	chosen := maps.Clone(m.Chosen)
	for _, p := range m.planes {
		p.gone = true
	}
	m.restart()
	m.tick()
	m.planes["dp0"].gone = false
	m.tick()
	if m.Step != 1 || m.Phase != Applying || !maps.Equal(m.Chosen, chosen) {
		t.Fatalf("step %d, %s, %v; want 1 and %v", m.Step, m.Phase, m.Chosen, chosen)
	}
	for _, p := range m.planes {
		p.gone = false
	}
	m.until(Baking)
	if n := len(m.onNewVersion()); n != 4 || m.Step != 1 {
		t.Errorf("%d have it in step %d", n, m.Step)
	}
	m.until(Done)
}

func TestWhoDoesNotComeBackAfterARestartHasVanished(t *testing.T) {
	m := newSim(t, 8, settings("1", "100%"))
	canary := m.canary()
	canary.gone = true
	m.restart()
	for range 5 {
		m.tick()
	}
	if m.Over() {
		t.Fatalf("it is %s: %s", m.Phase, m.Reason)
	}
	m.until(Aborted)
	if !strings.Contains(m.Reason, canary.ID) {
		t.Errorf("reason %s", m.Reason)
	}
}

func TestAFleetThatIsStillToComeIsWaitedFor(t *testing.T) {
	m := newSim(t, 4, settings("1", "50%", "100%"))
	m.Rollout = New(plan(settings("50%", "100%")), Options{Grace: 5 * time.Second, Started: true}, m.now)
	for _, p := range m.planes {
		p.gone = true
	}
	m.planes["dp0"].gone = false
	m.tick()
	if len(m.Chosen) > 0 {
		t.Fatal("a part of the fleet was taken for all of it")
	}
	m.planes["dp1"].gone, m.planes["dp2"].gone, m.planes["dp3"].gone = false, false, false
	m.until(Baking)
	if len(m.onNewVersion()) != 2 {
		t.Errorf("%v have it, want 2", m.onNewVersion())
	}
}

func TestThoseThatRunTheOneBeforeAreChosenFirst(t *testing.T) {
	m := newSim(t, 8, settings("2", "100%"))
	preferred := map[string]bool{"dp3": true, "dp6": true}
	m.Rollout = New(plan(settings("2", "100%")), Options{Grace: time.Second, Preferred: preferred}, m.now)
	m.until(Baking)
	if !maps.Equal(m.Chosen, preferred) {
		t.Errorf("chosen are %v, want %v", m.Chosen, preferred)
	}
}

func TestDamagedStates(t *testing.T) {
	m := newSim(t, 4, settings("1", "100%"))
	m.tick()
	good, err := m.Keep()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "half": string(good[:len(good)/2]), "nothing": "{}", "array": "[]",
		"phase":   strings.Replace(string(good), `"applying"`, `"sleeping"`, 1),
		"version": strings.Replace(string(good), `"Version": "new"`, `"Version": ""`, 1),
		"step":    strings.Replace(string(good), `"Step": 0`, `"Step": 2`, 1),
	} {
		if text == string(good) {
			t.Fatalf("%s: the state is not damaged", name)
		}
		if _, err := Restore([]byte(text), time.Second, m.now); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

func FuzzRestore(f *testing.F) {
	m := newSim(f, 4, settings("1", "25%", "100%"))
	m.tick()
	m.tick()
	good, _ := m.Keep()
	f.Add(good)
	f.Add([]byte(`{"Phase":"baking","Version":"a","BaseVersion":"b","Settings":{"Steps":[{"Percent":100}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Restore(data, time.Second, m.now)
		if err != nil {
			return
		}
		m := newSim(t, 3, settings("1", "100%"))
		m.Rollout = r
		for range 50 {
			m.tick()
		}
		_ = m.Describe()
		if _, err := m.Keep(); err != nil {
			t.Error(err)
		}
	})
}

// TestWhateverHappens lets a fleet do what it likes, restarts and people included, and
// checks what must always hold.
func TestWhateverHappens(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		choices := [][]string{{"1", "100%"}, {"1", "25%", "100%"}, {"10%", "20%", "50%", "100%"}, {"3", "5", "40%", "100%"}}
		s := settings(choices[random.IntN(len(choices))]...)
		s.Bake = time.Duration(1+random.IntN(10)) * time.Second
		s.AbortOn.Rejected, s.AbortOn.Disconnected = uint32(random.IntN(3)), uint32(random.IntN(3))
		s.OnNoTraffic = []string{config.Continue, config.Pause, config.Abort}[random.IntN(3)]
		m := newSim(t, 1+random.IntN(20), s)
		trouble := random.IntN(3) // none, some, much
		step, joined := 0, 0
		already := map[string]bool{} // came with the change, so they are beyond what a step allows
		for i := range 2000 {
			if m.Over() {
				break
			}
			for range trouble {
				m.disturb(random, &joined, already)
			}
			if m.Over() {
				break
			}
			before, had := m.Step, len(m.Chosen)
			m.tick()
			if m.Step < before || m.Step < step {
				t.Fatalf("seed %d: step %d after %d", seed, m.Step, before)
			}
			step = m.Step
			if n := len(m.Chosen); n > had && !m.Everybody() {
				beyond := 0
				for id := range already {
					if m.Chosen[id] {
						beyond++
					}
				}
				if n-beyond > max(m.Target, had) {
					t.Fatalf("seed %d: %d are chosen, %d of them came with it; the step allows %d\n%s", seed, n, beyond, m.Target, m.events())
				}
			}
			if i == 1999 && trouble == 0 && m.Phase != Paused {
				t.Fatalf("seed %d: no end, %s in step %d\n%s", seed, m.Phase, m.Step, m.events())
			}
		}
		for _, p := range m.planes {
			p.gone, p.away, p.late, p.slow, p.rejects = false, false, false, false, false
		}
		m.tick()
		left := len(m.onNewVersion())
		switch {
		case m.Phase == Aborted && left > 0:
			t.Fatalf("seed %d: %v are left on it", seed, m.onNewVersion())
		case m.Phase == Done && left != len(m.planes):
			t.Fatalf("seed %d: %d of %d have it", seed, left, len(m.planes))
		}
	}
}

// disturb lets something happen.
func (m *sim) disturb(random *rand.Rand, joined *int, already map[string]bool) {
	ids := slices.Sorted(maps.Keys(m.planes))
	p := m.planes[ids[random.IntN(len(ids))]]
	switch random.IntN(40) {
	case 0:
		p.away = !p.away
	case 1:
		p.gone = !p.gone
	case 2:
		p.rejects = !p.rejects
	case 3:
		p.slow = !p.slow
	case 4:
		p.errors = random.IntN(3)
	case 5, 6:
		*joined++
		n := m.join(fmt.Sprintf("new%d", *joined), nil)
		if random.IntN(2) == 0 {
			n.Version = newVersion
			already[n.ID] = true
		}
	case 7:
		if !m.Over() {
			m.restart()
		}
	case 8:
		_ = m.Pause(m.now, "")
	case 9, 10, 11:
		_ = m.Resume(m.now, "")
	case 12:
		if random.IntN(10) == 0 {
			_ = m.Promote(m.now, "")
		}
	}
	if p.gone && m.Chosen[p.ID] {
		already[p.ID] = true // when it comes back
	}
}

// BenchmarkAdvance is one look at a fleet of 10,000 in the middle of a bake; there are
// five in a second.
func BenchmarkAdvance(b *testing.B) {
	s := settings("25%", "100%")
	s.Bake = 24 * time.Hour
	m := newSim(b, 10_000, s)
	m.until(Baking)
	view := m.view()
	for b.Loop() {
		m.Advance(m.now, view)
	}
}
