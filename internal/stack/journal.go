package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// faultsPath is where the faults are written down, each before it is applied. While
// there is such a file, something may have to be undone.
func faultsPath(dir string) string { return filepath.Join(dir, "faults.json") }

func (s *Stack) writeFaultsLocked() error {
	if len(s.faults) == 0 {
		err := os.Remove(faultsPath(s.cfg.Dir))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	all := make([]ActiveFault, len(s.faults))
	for i, f := range s.faults {
		all[i] = f.ActiveFault
	}
	return WriteJSON(faultsPath(s.cfg.Dir), all)
}

// undoOffline undoes the faults that a run has left behind, once all its processes
// have ended. Most have ended with them: those of processes, of proxies, of sessions,
// and those of settings, which each start writes anew. What remains is on disk.
func undoOffline(dir string) error {
	data, err := os.ReadFile(faultsPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var faults []ActiveFault
	if err := json.Unmarshal(data, &faults); err != nil {
		return fmt.Errorf("stack: %s: %w", faultsPath(dir), err)
	}
	for _, f := range slices.Backward(faults) {
		var err error
		switch f.Kind {
		case FaultDiskFull:
			err = restoreDisk(dataDirOf(dir, f.Service))
		case FaultPromote:
			err = settlePromotion(dir, f)
		}
		if err != nil {
			return fmt.Errorf("stack: undo %s of an earlier run: %w", f.Fault, err)
		}
	}
	return os.Remove(faultsPath(dir))
}

// dataDirOf is where a server has its data.
func dataDirOf(dir, service string) string {
	if service == "redis" || service == "nats" {
		return filepath.Join(dir, service)
	}
	homes := postgresHomes(dir)
	for _, home := range homes {
		if path := filepath.Join(home, service); exists(path) || exists(path+limitedSuffix) {
			return path
		}
	}
	return filepath.Join(homes[0], service)
}

// settlePromotion decides how a promotion ended that was cut short: a server that was
// promoted has no standby.signal any more, and may have acknowledged writes since.
func settlePromotion(dir string, f ActiveFault) error {
	leader, err := readLeader(dir)
	if err != nil || leader != f.Was || !f.Promoting {
		return err // written down in time, or never begun
	}
	data := dataDirOf(dir, f.Service)
	if !exists(filepath.Join(data, "PG_VERSION")) || exists(filepath.Join(data, standbySignal)) {
		return nil
	}
	return WriteJSON(clusterPath(dir), clusterRecord{Primary: f.Service})
}
