// Command cronreference tells when Kubernetes' CronJob would fire, by the library that CronJob itself uses.
//
// It reads lines of `zone TAB expression TAB start TAB end` (unix seconds) and answers each with a line: the slots with
// start < slot <= end as unix minutes, separated by spaces.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata"

	"github.com/robfig/cron/v3"
)

func main() {
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		field := strings.Split(in.Text(), "\t")
		zone, err := time.LoadLocation(field[0])
		if err != nil {
			log.Fatal(err)
		}
		schedule, err := cron.ParseStandard(field[1])
		if err != nil {
			log.Fatal(err)
		}
		start, _ := strconv.ParseInt(field[2], 10, 64)
		end, _ := strconv.ParseInt(field[3], 10, 64)
		for t := time.Unix(start, 0).In(zone); ; {
			next := schedule.Next(t)
			if next.IsZero() || next.Unix() > end {
				break
			}
			if !next.After(t) { // it happens where clocks change by 45 minutes into the day
				t = t.Add(time.Minute)
				continue
			}
			t = next
			fmt.Fprint(out, t.Unix()/60, " ")
		}
		fmt.Fprintln(out)
	}
}
