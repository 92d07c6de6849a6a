"""The parts of tools/analysis_tools/ablation.py: table files, plan, scheduler, intervals, verdicts and report."""
